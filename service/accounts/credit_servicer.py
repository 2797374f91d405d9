"""CreditService: the caller's own account.

key -> caller -> account, key and the usage of 30 days, at one point in time

Simultaneous calls with the same key share one query, so that they do not delay other callers.
"""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeAlias

from grpc.aio import ServicerContext

from chatcompletion.v1 import credit_service_pb2 as pb
from chatcompletion.v1.credit_service_pb2_grpc import CreditServiceServicer
from service import errors
from service.accounts import messages
from service.accounts.directory import Directory
from service.accounts.keys import Caller
from service.accounts.reports import month_back
from service.accounts.store_access import Access
from service.call import CURRENT, Call
from service.credit_worth import CreditWorth

MOST_USAGE: Final = 1000
"""Maximum usage totals in a response."""

Authenticate = Callable[[Call], Awaitable[Caller]]
"""Returns the caller of a call, or raises INVALID_API_KEY."""

# Quoted, because it is generic for type checkers only.
_Context: TypeAlias = "ServicerContext[Any, Any]"


class CreditServicer(CreditServiceServicer):
    """The RPCs of CreditService.

    Args:
        authenticate: Finds the caller of a call.
        access: Access to the store.
        directory: The accounts and keys in it.
        now: Returns the current time in nanoseconds since the Unix epoch.
        worth: The worth of a credit, if responses show it.
    """

    def __init__(
        self,
        authenticate: Authenticate,
        access: Access,
        directory: Directory,
        *,
        now: Callable[[], int] = time.time_ns,
        worth: CreditWorth | None = None,
    ) -> None:
        self._worth = worth
        self._authenticate = authenticate
        self._access = access
        self._directory = directory
        self._now = now

    async def GetCredits(  # noqa: N802  (named by the contract)
        self, request: pb.GetCreditsRequest, context: _Context
    ) -> pb.GetCreditsResponse:
        """Return the caller's account, key and usage."""
        call = CURRENT.get()
        caller = await self._authenticate(call)
        since = month_back(self._now())
        seen = await self._access.share(
            ("statement", caller.key_id),
            self._directory.reports.statement,
            caller,
            since=since,
            most=MOST_USAGE,
        )
        if seen is None:
            raise errors.InvalidApiKey(errors.KEY_ENDED)
        account, key, usage, budgets = seen
        now = self._now()
        return pb.GetCreditsResponse(
            account=messages.account(account, now=now, worth=self._worth),
            api_key=messages.api_key(key, now=now),
            usage=map(partial(messages.usage, worth=self._worth), usage),
            budgets=[
                pb.BindingBudget(
                    account=one.account, key_name=one.key_name, budget=messages.budget(one.budget)
                )
                for one in budgets
            ],
        )

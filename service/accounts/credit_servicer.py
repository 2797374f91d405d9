"""CreditService: what callers see of their own account.

key ─► caller ─► account, key and the usage of 30 days, all of one moment

Calls with one key share a query while it runs: however many there are, they leave the others room.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from grpc.aio import ServicerContext

from chatcompletion.v1 import credit_service_pb2 as pb
from chatcompletion.v1.credit_service_pb2_grpc import CreditServiceServicer
from service import errors
from service.accounts import messages
from service.accounts.directory import Directory, month_back
from service.accounts.keys import Caller
from service.accounts.store_access import Access
from service.call import CURRENT, Call

MOST_USAGE: Final = 1000
"""Sums of usage in an answer."""

Authenticate = Callable[[Call], Awaitable[Caller]]
"""Returns who makes a call, or raises INVALID_API_KEY."""

# Quoted, since it is generic for type checkers only.
_Context: TypeAlias = "ServicerContext[Any, Any]"


class CreditServicer(CreditServiceServicer):
    """Credit, for callers.

    Args:
        authenticate: Who may call.
        access: The way to the store.
        directory: What can be asked there.
        now: Nanoseconds since the Unix epoch.
    """

    def __init__(
        self,
        authenticate: Authenticate,
        access: Access,
        directory: Directory,
        *,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._authenticate = authenticate
        self._access = access
        self._directory = directory
        self._now = now

    async def GetCredits(  # noqa: N802  (named by the contract)
        self, request: pb.GetCreditsRequest, context: _Context
    ) -> pb.GetCreditsResponse:
        """Return the caller's credit."""
        call = CURRENT.get()
        caller = await self._authenticate(call)
        since = month_back(self._now())
        seen = await self._access.share(
            ("statement", caller.key_id),
            self._directory.statement,
            caller,
            since=since,
            most=MOST_USAGE,
        )
        if seen is None:
            raise errors.InvalidApiKey
        account, key, usage = seen
        return pb.GetCreditsResponse(
            account=messages.account(account),
            api_key=messages.api_key(key),
            usage=map(messages.usage, usage),
        )

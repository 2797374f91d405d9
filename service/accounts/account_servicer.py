"""AccountService: each RPC runs the operation of the same name.

token -> fields -> the operation, in a thread of the store
"""

import hmac
import time
from collections.abc import Callable, Collection
from typing import Any, Final, TypeAlias, TypeVar

from google.protobuf.message import Message
from grpc.aio import ServicerContext

from chatcompletion.v1 import account_service_pb2 as pb
from chatcompletion.v1.account_service_pb2_grpc import AccountServiceServicer
from service import errors
from service.accounts import keys
from service.accounts.directory import Directory
from service.accounts.guesses import Guesses, address_of
from service.accounts.operations import Operations, check, recorded
from service.accounts.store_access import Access
from service.call import CURRENT, Call
from service.credit_worth import CreditWorth

SHORTEST_TOKEN: Final = 16
"""Characters."""

# Quoted, because it is generic for type checkers only.
_Context: TypeAlias = "ServicerContext[Any, Any]"

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)

_SCHEME: Final = "bearer "


class AccountServicer(AccountServiceServicer):
    """The RPCs of AccountService.

    Args:
        access: Access to the store.
        directory: The accounts and keys in it.
        token: The bearer token of operators: at least 16 characters.
        clock: A monotonic clock, in seconds.
        now: Returns the current time in nanoseconds since the Unix epoch.
        models: Returns the names and patterns of the models that exist, or None if they are not
            known.
        worth: The worth of a credit, if responses show it.
        time_zone: The time zone of new budgets that name none.

    Raises:
        ValueError: The token is shorter. An empty one would admit everybody.
    """

    def __init__(
        self,
        access: Access,
        directory: Directory,
        *,
        token: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], int] = time.time_ns,
        models: Callable[[], Collection[str] | None] = lambda: None,
        worth: CreditWorth | None = None,
        time_zone: str = "UTC",
    ) -> None:
        self._access = access
        self._operations = Operations(
            directory, now=now, models=models, worth=worth, time_zone=time_zone
        )
        if len(token) < SHORTEST_TOKEN:
            raise ValueError(f"the admin token has fewer than {SHORTEST_TOKEN} characters")
        self._token = keys.digest(token)
        self._guesses = Guesses(clock)

    async def CreateAccount(  # noqa: N802  (named by the contract)
        self, request: pb.CreateAccountRequest, context: _Context
    ) -> pb.CreateAccountResponse:
        """Create an account."""
        return await self._write(self._operations.create_account, request)

    async def SetBudgets(  # noqa: N802  (named by the contract)
        self, request: pb.SetBudgetsRequest, context: _Context
    ) -> pb.SetBudgetsResponse:
        """Set and remove budgets of an account or a key."""
        return await self._write(self._operations.set_budgets, request)

    async def ListAccounts(  # noqa: N802  (named by the contract)
        self, request: pb.ListAccountsRequest, context: _Context
    ) -> pb.ListAccountsResponse:
        """Return a page of accounts."""
        return await self._read(self._operations.list_accounts, request)

    async def GetAccount(  # noqa: N802  (named by the contract)
        self, request: pb.GetAccountRequest, context: _Context
    ) -> pb.GetAccountResponse:
        """Return an account."""
        return await self._read(self._operations.get_account, request)

    async def SuspendAccount(  # noqa: N802  (named by the contract)
        self, request: pb.SuspendAccountRequest, context: _Context
    ) -> pb.SuspendAccountResponse:
        """Suspend an account."""
        return await self._write(self._operations.suspend_account, request)

    async def ResumeAccount(  # noqa: N802  (named by the contract)
        self, request: pb.ResumeAccountRequest, context: _Context
    ) -> pb.ResumeAccountResponse:
        """Resume an account."""
        return await self._write(self._operations.resume_account, request)

    async def DeleteAccount(  # noqa: N802  (named by the contract)
        self, request: pb.DeleteAccountRequest, context: _Context
    ) -> pb.DeleteAccountResponse:
        """Delete an account."""
        return await self._write(self._operations.delete_account, request)

    async def AddCredit(  # noqa: N802  (named by the contract)
        self, request: pb.AddCreditRequest, context: _Context
    ) -> pb.AddCreditResponse:
        """Add credit once."""
        return await self._write(self._operations.add_credit, request)

    async def DeductCredit(  # noqa: N802  (named by the contract)
        self, request: pb.DeductCreditRequest, context: _Context
    ) -> pb.DeductCreditResponse:
        """Take credit back once."""
        return await self._write(self._operations.deduct_credit, request)

    async def CreateApiKey(  # noqa: N802  (named by the contract)
        self, request: pb.CreateApiKeyRequest, context: _Context
    ) -> pb.CreateApiKeyResponse:
        """Create a key and return its secret."""
        return await self._write(self._operations.create_api_key, request)

    async def ListApiKeys(  # noqa: N802  (named by the contract)
        self, request: pb.ListApiKeysRequest, context: _Context
    ) -> pb.ListApiKeysResponse:
        """Return a page of keys."""
        return await self._read(self._operations.list_api_keys, request)

    async def UpdateApiKey(  # noqa: N802  (named by the contract)
        self, request: pb.UpdateApiKeyRequest, context: _Context
    ) -> pb.UpdateApiKeyResponse:
        """Change the limits of a key."""
        return await self._write(self._operations.update_api_key, request)

    async def RotateApiKey(  # noqa: N802  (named by the contract)
        self, request: pb.RotateApiKeyRequest, context: _Context
    ) -> pb.RotateApiKeyResponse:
        """Give a key a new secret, and return it."""
        return await self._write(self._operations.rotate_api_key, request)

    async def SuspendApiKey(  # noqa: N802  (named by the contract)
        self, request: pb.SuspendApiKeyRequest, context: _Context
    ) -> pb.SuspendApiKeyResponse:
        """Suspend a key."""
        return await self._write(self._operations.suspend_api_key, request)

    async def ResumeApiKey(  # noqa: N802  (named by the contract)
        self, request: pb.ResumeApiKeyRequest, context: _Context
    ) -> pb.ResumeApiKeyResponse:
        """Resume a key."""
        return await self._write(self._operations.resume_api_key, request)

    async def FindApiKey(  # noqa: N802  (named by the contract)
        self, request: pb.FindApiKeyRequest, context: _Context
    ) -> pb.FindApiKeyResponse:
        """Return the key of a secret."""
        return await self._read(self._operations.find_api_key, request)

    async def RevokeApiKey(  # noqa: N802  (named by the contract)
        self, request: pb.RevokeApiKeyRequest, context: _Context
    ) -> pb.RevokeApiKeyResponse:
        """Revoke a key."""
        return await self._write(self._operations.revoke_api_key, request)

    async def ListLedgerEntries(  # noqa: N802  (named by the contract)
        self, request: pb.ListLedgerEntriesRequest, context: _Context
    ) -> pb.ListLedgerEntriesResponse:
        """Return a page of the ledger."""
        return await self._read(self._operations.list_ledger_entries, request)

    async def ListUsage(  # noqa: N802  (named by the contract)
        self, request: pb.ListUsageRequest, context: _Context
    ) -> pb.ListUsageResponse:
        """Return a page of usage."""
        return await self._read(self._operations.list_usage, request)

    async def ListAuditEntries(  # noqa: N802  (named by the contract)
        self, request: pb.ListAuditEntriesRequest, context: _Context
    ) -> pb.ListAuditEntriesResponse:
        """Return a page of the audit log."""
        return await self._read(self._operations.list_audit_entries, request)

    async def authenticate(self, call: Call) -> None:
        """Check the token of a call.

        Raises:
            InvalidApiKey: The token is missing or wrong.
            RateLimited: The address of the caller sent too many wrong ones.
        """
        peer = call.peer()
        self._guesses.check(peer)
        given = call.authorization or ""
        digest = keys.digest(given[len(_SCHEME) :].strip())
        # Comparing digests reveals nothing about the token or its length through timing.
        is_token = hmac.compare_digest(digest, self._token)
        if given[: len(_SCHEME)].lower() != _SCHEME or not is_token:
            self._guesses.wrong(peer)
            raise errors.InvalidApiKey("The admin token is missing or wrong.")

    async def _read(
        self, operation: Callable[[_Request], _Response], request: _Request
    ) -> _Response:
        await self._accept(request)
        return await self._access.read(operation, request)

    async def _write(
        self, operation: Callable[[_Request], _Response], request: _Request
    ) -> _Response:
        await self._accept(request)
        call = CURRENT.get()
        actor = f"rpc:{call.identity() or address_of(call.peer())}"
        return await self._access.write(recorded, actor, operation, request)

    async def _accept(self, request: Message) -> None:
        await self.authenticate(CURRENT.get())
        check(request)

"""AccountService: what operators do, each RPC one straight line.

    token ─► fields ─► the directory, or an operation ─► the answer as messages

What a field may hold is a row of `FIELDS`; every request of the service has its rows, and each RPC
looks at them and at the token before anything else.
"""

import hmac
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpc.aio import ServicerContext

from chatcompletion.v1 import account_pb2
from chatcompletion.v1 import account_service_pb2 as pb
from chatcompletion.v1.account_service_pb2_grpc import AccountServiceServicer
from service import errors
from service.accounts import inputs, keys, messages, pages
from service.accounts.access import Access
from service.accounts.directory import DAY, Directory, month_back
from service.accounts.rows import Grant, Granted
from service.accounts.usage import HOUR
from service.call import CURRENT
from service.errors import InvalidRequest, Violation

MOST_USAGE: Final = 10_000
"""Sums that one answer of GetUsage holds."""

LARGEST_ANSWER: Final = 4_000_000
"""Bytes of an answer of GetUsage: gRPC's clients read 4 MiB by default."""

# Quoted, since it is generic for type checkers only.
_Context: TypeAlias = "ServicerContext[Any, Any]"

_View = TypeVar("_View")

_SCHEME: Final = "bearer "
_INTERVALS: Final[Mapping[int, int]] = {
    account_pb2.USAGE_INTERVAL_UNSPECIFIED: DAY,
    account_pb2.USAGE_INTERVAL_HOUR: HOUR,
    account_pb2.USAGE_INTERVAL_DAY: DAY,
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a request."""

    path: str
    rule: inputs.Rule
    required: bool = False


_ACCOUNT: Final = Field("account", inputs.NAME, required=True)
_KEY: Final = Field("name", inputs.NAME, required=True)
_PAGE: Final = Field("page_size", inputs.PAGE_SIZE)

FIELDS: Final[Mapping[type[Message], tuple[Field, ...]]] = {
    pb.CreateAccountRequest: (Field("name", inputs.NAME, required=True),),
    pb.ListAccountsRequest: (_PAGE,),
    pb.GetAccountRequest: (_ACCOUNT,),
    pb.AddCreditRequest: (
        _ACCOUNT,
        Field("amount_nano_credits", inputs.AMOUNT, required=True),
        Field("idempotency_id", inputs.IDEMPOTENCY_ID, required=True),
    ),
    pb.CreateKeyRequest: (
        _ACCOUNT,
        _KEY,
        Field("limits.models.names", inputs.MODELS),
        Field("limits.requests_per_minute", inputs.LIMIT),
        Field("limits.tokens_per_minute", inputs.LIMIT),
        Field("limits.concurrency", inputs.LIMIT),
        Field("limits.expires_at", inputs.INSTANT),
    ),
    pb.ListKeysRequest: (_ACCOUNT, _PAGE),
    pb.RevokeKeyRequest: (_ACCOUNT, _KEY),
    pb.ListLedgerEntriesRequest: (_ACCOUNT, _PAGE),
    pb.GetUsageRequest: (
        _ACCOUNT,
        Field("key_name", inputs.NAME),
        Field("model", inputs.MODEL),
        Field(
            "interval",
            inputs.Rule(allowed="HOUR or DAY", accepts=lambda value: value in _INTERVALS),
        ),
        Field("since", inputs.INSTANT),
        Field("until", inputs.INSTANT),
    ),
}
"""What each request may hold; page tokens are read by `pages`."""


class AccountServicer(AccountServiceServicer):
    """Accounts, for operators.

    Args:
        access: The way to the store.
        directory: What can be asked there.
        token: What operators show; at least 16 characters.
        now: Nanoseconds since the Unix epoch.
    """

    def __init__(
        self,
        access: Access,
        directory: Directory,
        *,
        token: str,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._access = access
        self._directory = directory
        self._token = keys.digest(token)
        self._now = now

    async def CreateAccount(  # noqa: N802  (named by the contract)
        self, request: pb.CreateAccountRequest, context: _Context
    ) -> pb.CreateAccountResponse:
        """Create an account."""
        self._accept(request)
        created = await self._access.write(self._directory.create_account, request.name)
        return pb.CreateAccountResponse(account=messages.account(created))

    async def ListAccounts(  # noqa: N802  (named by the contract)
        self, request: pb.ListAccountsRequest, context: _Context
    ) -> pb.ListAccountsResponse:
        """Return a page of accounts."""
        self._accept(request)
        of = "accounts"
        after = _position(of, request.page_token, 1) or (0,)
        size = pages.size(request.page_size)
        found = await self._access.read(self._directory.accounts, after=after[0], limit=size + 1)
        return pb.ListAccountsResponse(
            accounts=map(messages.account, found[:size]),
            next_page_token=_more(of, found, size, lambda view: (view.id,)),
        )

    async def GetAccount(  # noqa: N802  (named by the contract)
        self, request: pb.GetAccountRequest, context: _Context
    ) -> pb.GetAccountResponse:
        """Return an account."""
        self._accept(request)
        found = await self._access.read(self._directory.account, request.account)
        return pb.GetAccountResponse(account=messages.account(found))

    async def AddCredit(  # noqa: N802  (named by the contract)
        self, request: pb.AddCreditRequest, context: _Context
    ) -> pb.AddCreditResponse:
        """Add credit once."""
        self._accept(request)
        owner = await self._access.read(self._directory.account, request.account)
        grant = Grant(
            account_id=owner.id,
            amount=request.amount_nano_credits,
            idempotency_id=request.idempotency_id,
        )
        outcome = await self._access.apply(grant)
        if isinstance(outcome, Granted) and outcome.balance is None:
            raise _invalid("amount_nano_credits", "The balance would exceed its largest value.")
        made = await self._access.read(self._directory.grant, owner.id, grant.idempotency_id)
        if made.amount != grant.amount:
            raise errors.AlreadyExists(
                "The idempotency id was used for another amount.", param="idempotency_id"
            )
        owner = await self._access.read(self._directory.account, request.account)
        return pb.AddCreditResponse(entry=messages.entry(made), account=messages.account(owner))

    async def CreateKey(  # noqa: N802  (named by the contract)
        self, request: pb.CreateKeyRequest, context: _Context
    ) -> pb.CreateKeyResponse:
        """Create a key, and answer it this once."""
        self._accept(request)
        limits = messages.key_limits(request.limits)
        if limits.expires_at is not None and limits.expires_at <= self._now():
            raise _invalid("limits.expires_at", "Must lie in the future.")
        created, key = await self._access.write(
            self._directory.create_key, request.account, request.name, limits
        )
        return pb.CreateKeyResponse(api_key=messages.api_key(created), key=key)

    async def ListKeys(  # noqa: N802  (named by the contract)
        self, request: pb.ListKeysRequest, context: _Context
    ) -> pb.ListKeysResponse:
        """Return a page of keys."""
        self._accept(request)
        of = f"keys/{request.account}"
        after = _position(of, request.page_token, 1) or (0,)
        size = pages.size(request.page_size, pages.LARGEST_OF_KEYS)
        found = await self._access.read(
            self._directory.keys, request.account, after=after[0], limit=size + 1
        )
        return pb.ListKeysResponse(
            api_keys=map(messages.api_key, found[:size]),
            next_page_token=_more(of, found, size, lambda view: (view.id,)),
        )

    async def RevokeKey(  # noqa: N802  (named by the contract)
        self, request: pb.RevokeKeyRequest, context: _Context
    ) -> pb.RevokeKeyResponse:
        """Revoke a key."""
        self._accept(request)
        revoked = await self._access.write(
            self._directory.revoke_key, request.account, request.name
        )
        return pb.RevokeKeyResponse(api_key=messages.api_key(revoked))

    async def ListLedgerEntries(  # noqa: N802  (named by the contract)
        self, request: pb.ListLedgerEntriesRequest, context: _Context
    ) -> pb.ListLedgerEntriesResponse:
        """Return a page of the ledger."""
        self._accept(request)
        of = f"ledger/{request.account}"
        before = _position(of, request.page_token, 2)
        size = pages.size(request.page_size)
        found = await self._access.read(
            self._directory.ledger, request.account, before=before, limit=size + 1
        )
        return pb.ListLedgerEntriesResponse(
            entries=map(messages.entry, found[:size]),
            next_page_token=_more(of, found, size, lambda view: (view.created_at, view.id)),
        )

    async def GetUsage(  # noqa: N802  (named by the contract)
        self, request: pb.GetUsageRequest, context: _Context
    ) -> pb.GetUsageResponse:
        """Return usage, summed up."""
        self._accept(request)
        since = _value(request, "since")
        used = await self._access.read(
            self._directory.usage,
            request.account,
            since=month_back(self._now()) if since is None else since,
            until=_value(request, "until"),
            interval=_INTERVALS[request.interval],
            key_name=_value(request, "key_name"),
            model=_value(request, "model"),
            limit=MOST_USAGE + 1,
        )
        if len(used) > MOST_USAGE:
            raise _invalid("since", f"More than {MOST_USAGE} sums: ask for a shorter time.")
        answer = pb.GetUsageResponse(usage=map(messages.usage, used))
        if answer.ByteSize() > LARGEST_ANSWER:
            raise _invalid("since", "Too large an answer: ask for a shorter time.")
        return answer

    def _accept(self, request: Message) -> None:
        """See who calls and what with.

        Raises:
            InvalidApiKey: the token is missing or wrong.
            InvalidRequest: a field is missing or not allowed.
        """
        given = CURRENT.get().authorization or ""
        digest = keys.digest(given[len(_SCHEME) :].strip())
        # Digests are compared, so that time tells nothing of the token or its length.
        is_token = hmac.compare_digest(digest, self._token)
        if given[: len(_SCHEME)].lower() != _SCHEME or not is_token:
            raise errors.InvalidApiKey("The admin token is missing or wrong.")
        found = [*violations(request)]
        if found:
            raise InvalidRequest.of(found)


def violations(request: Message) -> Iterator[Violation]:
    """Yield what is wrong with a request, in the order of its fields."""
    for field in FIELDS[type(request)]:
        value = _value(request, field.path)
        if value is None:
            if field.required:
                yield Violation(
                    param=field.path, message="Is required.", code="missing_required_parameter"
                )
        elif not field.rule.accepts(value):
            yield Violation(param=field.path, message=f"Must be {field.rule.allowed}.")


def _value(message: Any, path: str) -> Any:
    """Return the value at a path, None where it is absent; of a time its nanoseconds."""
    for name in path.split("."):
        is_list = message.DESCRIPTOR.fields_by_name[name].is_repeated
        if not is_list and not message.HasField(name):
            return None
        message = getattr(message, name)
    return messages.nanoseconds(message) if isinstance(message, Timestamp) else message


def _position(of: str, token: str, numbers: int) -> tuple[int, ...] | None:
    if not token:
        return None
    try:
        return pages.decode(of, token, numbers)
    except pages.TokenError as error:
        raise _invalid("page_token", "Is not a token of this list.") from error


def _more(
    of: str, found: Sequence[_View], size: int, position: Callable[[_View], tuple[int, ...]]
) -> str | None:
    """Return the token of the next page where more was found than fits on this one."""
    return pages.encode(of, *position(found[size - 1])) if len(found) > size else None


def _invalid(param: str, message: str) -> InvalidRequest:
    return InvalidRequest.of([Violation(param=param, message=message)])

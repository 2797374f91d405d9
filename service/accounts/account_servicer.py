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
from service.accounts import field_rules, keys, messages, page_tokens
from service.accounts.directory import DAY, Directory, month_back
from service.accounts.store_access import Access
from service.call import CURRENT, Call
from service.errors import InvalidRequest, Violation
from service.ledger.rows import Grant, Granted
from service.ledger.usage import HOUR

SHORTEST_TOKEN: Final = 16
"""Characters."""

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
    rule: field_rules.FieldRule
    required: bool = False


_ACCOUNT: Final = Field("account", field_rules.NAME, required=True)
_KEY: Final = Field("name", field_rules.NAME, required=True)
_PAGE: Final = Field("page_size", field_rules.PAGE_SIZE)

FIELDS: Final[Mapping[type[Message], tuple[Field, ...]]] = {
    pb.CreateAccountRequest: (Field("name", field_rules.NAME, required=True),),
    pb.ListAccountsRequest: (_PAGE,),
    pb.GetAccountRequest: (_ACCOUNT,),
    pb.AddCreditRequest: (
        _ACCOUNT,
        Field("amount_nano_credits", field_rules.AMOUNT, required=True),
        Field("idempotency_id", field_rules.IDEMPOTENCY_ID, required=True),
    ),
    pb.CreateApiKeyRequest: (
        _ACCOUNT,
        _KEY,
        Field("limits.models.names", field_rules.MODELS),
        Field("limits.requests_per_minute", field_rules.LIMIT),
        Field("limits.tokens_per_minute", field_rules.LIMIT),
        Field("limits.concurrency", field_rules.LIMIT),
        Field("limits.expire_time", field_rules.INSTANT),
    ),
    pb.ListApiKeysRequest: (_ACCOUNT, _PAGE),
    pb.RevokeApiKeyRequest: (_ACCOUNT, _KEY),
    pb.ListLedgerEntriesRequest: (_ACCOUNT, _PAGE),
    pb.ListUsageRequest: (
        _ACCOUNT,
        _PAGE,
        Field("key_name", field_rules.NAME),
        Field("model", field_rules.MODEL),
        Field(
            "interval",
            field_rules.FieldRule(allowed="HOUR or DAY", accepts=lambda value: value in _INTERVALS),
        ),
        Field("start_time", field_rules.INSTANT),
        Field("end_time", field_rules.INSTANT),
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

    Raises:
        ValueError: the token is shorter. An empty one would let in everybody.
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
        if len(token) < SHORTEST_TOKEN:
            raise ValueError(f"the admin token has fewer than {SHORTEST_TOKEN} characters")
        self._token = keys.digest(token)
        self._now = now

    async def CreateAccount(  # noqa: N802  (named by the contract)
        self, request: pb.CreateAccountRequest, context: _Context
    ) -> pb.CreateAccountResponse:
        """Create an account."""
        await self._accept(request)
        created = await self._access.write(self._directory.create_account, request.name)
        return pb.CreateAccountResponse(account=messages.account(created))

    async def ListAccounts(  # noqa: N802  (named by the contract)
        self, request: pb.ListAccountsRequest, context: _Context
    ) -> pb.ListAccountsResponse:
        """Return a page of accounts."""
        await self._accept(request)
        of = "accounts"
        after = _position(of, request.page_token, (int,)) or (0,)
        size = page_tokens.size(request.page_size)
        found = await self._access.read(self._directory.accounts, after=after[0], limit=size + 1)
        return pb.ListAccountsResponse(
            accounts=map(messages.account, found[:size]),
            next_page_token=_more(of, found, size, lambda view: (view.id,)),
        )

    async def GetAccount(  # noqa: N802  (named by the contract)
        self, request: pb.GetAccountRequest, context: _Context
    ) -> pb.GetAccountResponse:
        """Return an account."""
        await self._accept(request)
        found = await self._access.read(self._directory.account, request.account)
        return pb.GetAccountResponse(account=messages.account(found))

    async def AddCredit(  # noqa: N802  (named by the contract)
        self, request: pb.AddCreditRequest, context: _Context
    ) -> pb.AddCreditResponse:
        """Add credit once."""
        await self._accept(request)
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

    async def CreateApiKey(  # noqa: N802  (named by the contract)
        self, request: pb.CreateApiKeyRequest, context: _Context
    ) -> pb.CreateApiKeyResponse:
        """Create a key and return its secret."""
        await self._accept(request)
        limits = messages.key_limits(request.limits)
        if limits.expires_at is not None and limits.expires_at <= self._now():
            raise _invalid("limits.expire_time", "Must be in the future.")
        created, key = await self._access.write(
            self._directory.create_key, request.account, request.name, limits
        )
        return pb.CreateApiKeyResponse(api_key=messages.api_key(created), key_string=key)

    async def ListApiKeys(  # noqa: N802  (named by the contract)
        self, request: pb.ListApiKeysRequest, context: _Context
    ) -> pb.ListApiKeysResponse:
        """Return a page of keys."""
        await self._accept(request)
        of = f"keys/{request.account}"
        after = _position(of, request.page_token, (int,)) or (0,)
        size = page_tokens.size(request.page_size, page_tokens.LARGEST_OF_KEYS)
        found = await self._access.read(
            self._directory.keys, request.account, after=after[0], limit=size + 1
        )
        return pb.ListApiKeysResponse(
            api_keys=map(messages.api_key, found[:size]),
            next_page_token=_more(of, found, size, lambda view: (view.id,)),
        )

    async def RevokeApiKey(  # noqa: N802  (named by the contract)
        self, request: pb.RevokeApiKeyRequest, context: _Context
    ) -> pb.RevokeApiKeyResponse:
        """Revoke a key."""
        await self._accept(request)
        revoked = await self._access.write(
            self._directory.revoke_key, request.account, request.name
        )
        return pb.RevokeApiKeyResponse(api_key=messages.api_key(revoked))

    async def ListLedgerEntries(  # noqa: N802  (named by the contract)
        self, request: pb.ListLedgerEntriesRequest, context: _Context
    ) -> pb.ListLedgerEntriesResponse:
        """Return a page of the ledger."""
        await self._accept(request)
        of = f"ledger/{request.account}"
        before = _position(of, request.page_token, (int, int))
        size = page_tokens.size(request.page_size)
        found = await self._access.read(
            self._directory.ledger, request.account, before=before, limit=size + 1
        )
        return pb.ListLedgerEntriesResponse(
            entries=map(messages.entry, found[:size]),
            next_page_token=_more(of, found, size, lambda view: (view.created_at, view.id)),
        )

    async def ListUsage(  # noqa: N802  (named by the contract)
        self, request: pb.ListUsageRequest, context: _Context
    ) -> pb.ListUsageResponse:
        """Return a page of usage."""
        await self._accept(request)
        end, interval = _value(request, "end_time"), _INTERVALS[request.interval]
        start = _value(request, "start_time")
        of = f"usage/{request.account}/{request.key_name}/{request.model}/{interval}/{start}/{end}"
        position = _position(of, request.page_token, (int, int, str, str))
        # A range without a start begins on every page where it began on the first.
        start = start if start is not None else month_back(self._now())
        begin, *after = position or (start,)
        if position is not None and not field_rules.INSTANT.accepts(begin):
            raise _not_of_this_list()
        size = page_tokens.size(request.page_size)
        found = await self._access.read(
            self._directory.usage,
            request.account,
            since=begin,
            until=end,
            interval=interval,
            key_name=request.key_name or None,
            model=request.model or None,
            after=tuple(after) or None,
            limit=size + 1,
        )
        return pb.ListUsageResponse(
            usage=map(messages.usage, found[:size]),
            next_page_token=_more(
                of, found, size, lambda view: (begin, view.start, view.key_name, view.model)
            ),
        )

    async def authenticate(self, call: Call) -> None:
        """See that a call shows the token.

        Raises:
            InvalidApiKey: the token is missing or wrong.
        """
        given = call.authorization or ""
        digest = keys.digest(given[len(_SCHEME) :].strip())
        # Digests are compared, so that time tells nothing of the token or its length.
        is_token = hmac.compare_digest(digest, self._token)
        if given[: len(_SCHEME)].lower() != _SCHEME or not is_token:
            raise errors.InvalidApiKey("The admin token is missing or wrong.")

    async def _accept(self, request: Message) -> None:
        """See who calls and what with.

        Raises:
            InvalidApiKey: the token is missing or wrong.
            InvalidRequest: a field is missing or not allowed.
        """
        await self.authenticate(CURRENT.get())
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
    """Return the value at a path, None if it is absent; of a time its nanoseconds.

    A field without presence is absent if it has its default value.
    """
    for name in path.split("."):
        field = message.DESCRIPTOR.fields_by_name[name]
        if field.has_presence and not message.HasField(name):
            return None
        message = getattr(message, name)
        if not (field.has_presence or field.is_repeated or message):
            return None
    return messages.nanoseconds(message) if isinstance(message, Timestamp) else message


def _position(of: str, token: str, kinds: tuple[type, ...]) -> tuple[Any, ...] | None:
    if not token:
        return None
    try:
        return page_tokens.decode(of, token, kinds)
    except page_tokens.TokenError as error:
        raise _not_of_this_list() from error


def _not_of_this_list() -> InvalidRequest:
    return _invalid("page_token", "Is not a token of this list.")


def _more(
    of: str, found: Sequence[_View], size: int, position: Callable[[_View], tuple[int | str, ...]]
) -> str:
    """Return the token of the next page, "" if all that was found fits on this one."""
    return page_tokens.encode(of, *position(found[size - 1])) if len(found) > size else ""


def _invalid(param: str, message: str) -> InvalidRequest:
    return InvalidRequest.of([Violation(param=param, message=message)])

"""The operators' operations, shared by the RPCs of AccountService and the commands.

    request -> check -> Operations -> response

`FIELDS` has a row for each field of each request, with the rule for its value.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from chatcompletion.v1 import account_pb2
from chatcompletion.v1 import account_service_pb2 as pb
from service.accounts import audit, budget_requests, field_rules, messages, page_tokens
from service.accounts.directory import Directory
from service.accounts.key_rows import StoredRow
from service.accounts.reports import DAY, month_back
from service.credit_worth import CreditWorth
from service.errors import InvalidRequest, Violation
from service.ledger.usage import HOUR

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)

_INTERVALS: Final[Mapping[int, int | None]] = {
    account_pb2.USAGE_INTERVAL_UNSPECIFIED: DAY,
    account_pb2.USAGE_INTERVAL_HOUR: HOUR,
    account_pb2.USAGE_INTERVAL_DAY: DAY,
    account_pb2.USAGE_INTERVAL_RANGE: None,
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
_LIMITS: Final = (
    Field("limits.models.names", field_rules.MODELS),
    Field("limits.requests_per_minute", field_rules.LIMIT),
    Field("limits.tokens_per_minute", field_rules.LIMIT),
    Field("limits.concurrency", field_rules.LIMIT),
    Field("limits.expire_time", field_rules.INSTANT),
)

FIELDS: Final[Mapping[type[Message], tuple[Field, ...]]] = {
    pb.CreateAccountRequest: (
        Field("name", field_rules.NEW_NAME, required=True),
        Field("parent", field_rules.NAME),
    ),
    pb.SetBudgetsRequest: (_ACCOUNT, Field("key_name", field_rules.NAME)),
    pb.ListAccountsRequest: (_PAGE,),
    pb.GetAccountRequest: (_ACCOUNT,),
    pb.SuspendAccountRequest: (_ACCOUNT,),
    pb.ResumeAccountRequest: (_ACCOUNT,),
    pb.DeleteAccountRequest: (_ACCOUNT,),
    pb.AddCreditRequest: (
        _ACCOUNT,
        Field("amount_nano_credits", field_rules.AMOUNT, required=True),
        Field("idempotency_id", field_rules.IDEMPOTENCY_ID, required=True),
    ),
    pb.DeductCreditRequest: (
        _ACCOUNT,
        Field("amount_nano_credits", field_rules.AMOUNT, required=True),
        Field("idempotency_id", field_rules.IDEMPOTENCY_ID, required=True),
    ),
    pb.CreateApiKeyRequest: (
        _ACCOUNT,
        Field("name", field_rules.NEW_NAME, required=True),
        *_LIMITS,
        Field("identity", field_rules.IDENTITY),
    ),
    pb.UpdateApiKeyRequest: (
        _ACCOUNT,
        _KEY,
        *_LIMITS,
        Field("update_mask.paths", field_rules.PATHS_OF_LIMITS, required=True),
    ),
    pb.RotateApiKeyRequest: (_ACCOUNT, _KEY, Field("grace_period", field_rules.GRACE)),
    pb.SuspendApiKeyRequest: (_ACCOUNT, _KEY),
    pb.ResumeApiKeyRequest: (_ACCOUNT, _KEY),
    pb.FindApiKeyRequest: (Field("secret", field_rules.SECRET, required=True),),
    pb.ListApiKeysRequest: (_ACCOUNT, _PAGE),
    pb.RevokeApiKeyRequest: (_ACCOUNT, _KEY),
    pb.ListLedgerEntriesRequest: (_ACCOUNT, _PAGE),
    pb.ListAuditEntriesRequest: (Field("account", field_rules.NAME), _PAGE),
    pb.ListUsageRequest: (
        Field("account", field_rules.NAME),
        _PAGE,
        Field("key_name", field_rules.NAME),
        Field("model", field_rules.MODEL),
        Field(
            "interval",
            field_rules.FieldRule(
                allowed="HOUR, DAY or RANGE", accepts=lambda value: value in _INTERVALS
            ),
        ),
        Field("start_time", field_rules.INSTANT),
        Field("end_time", field_rules.INSTANT),
    ),
}
"""The rules for the fields of each request. The operations check page tokens and expire times."""


class Operations:
    """The operations of AccountService. `check` must have accepted the request.

    Every method blocks, and raises `StoreError` if the store is away. The contract documents the
    other failures.

    Args:
        directory: The accounts and keys.
        now: Returns the current time in nanoseconds since the Unix epoch.
        models: Returns the names and patterns of the models that exist, or None if they are not
            known. The models of a key must be among them.
        worth: The worth of a credit, if responses show it.
        time_zone: The time zone of new budgets that name none.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        now: Callable[[], int] = time.time_ns,
        models: Callable[[], Collection[str] | None] = lambda: None,
        worth: CreditWorth | None = None,
        time_zone: str = "UTC",
    ) -> None:
        self._directory = directory
        self._worth = worth
        self._time_zone = time_zone
        self._entry = partial(messages.entry, worth=worth)
        self._usage = partial(messages.usage, worth=worth)
        self._now = now
        self._models = models

    def create_account(self, request: pb.CreateAccountRequest) -> pb.CreateAccountResponse:
        """Create an account."""
        created = self._directory.create_account(request.name, parent=request.parent)
        return pb.CreateAccountResponse(account=self._account(created))

    def _account(self, row: StoredRow) -> account_pb2.Account:
        return messages.account(row, now=self._now(), worth=self._worth)

    def _key(self, row: StoredRow) -> account_pb2.ApiKey:
        return messages.api_key(row, now=self._now())

    def set_budgets(self, request: pb.SetBudgetsRequest) -> pb.SetBudgetsResponse:
        """Set and remove budgets of an account or a key."""
        changes, removed = budget_requests.changes(request)
        found = self._directory.budgets.set(
            request.account,
            request.key_name,
            changes=changes,
            removed=removed,
            time_zone=self._time_zone,
        )
        return pb.SetBudgetsResponse(budgets=map(messages.budget, found))

    def list_accounts(self, request: pb.ListAccountsRequest) -> pb.ListAccountsResponse:
        """Return a page of accounts."""
        of = "accounts"
        (after,) = _position(of, request.page_token, (int,)) or (0,)
        size = page_tokens.size(request.page_size)
        found = self._directory.accounts(after=after, limit=size + 1)
        return pb.ListAccountsResponse(
            accounts=map(self._account, found[:size]),
            next_page_token=_more(of, found, size, lambda row: (row.id,)),
        )

    def get_account(self, request: pb.GetAccountRequest) -> pb.GetAccountResponse:
        """Return an account."""
        found = self._directory.account(request.account)
        return pb.GetAccountResponse(account=self._account(found))

    def suspend_account(self, request: pb.SuspendAccountRequest) -> pb.SuspendAccountResponse:
        """Suspend an account."""
        suspended = self._directory.lifecycle.suspend_account(request.account)
        return pb.SuspendAccountResponse(account=self._account(suspended))

    def resume_account(self, request: pb.ResumeAccountRequest) -> pb.ResumeAccountResponse:
        """Resume an account."""
        resumed = self._directory.lifecycle.resume_account(request.account)
        return pb.ResumeAccountResponse(account=self._account(resumed))

    def delete_account(self, request: pb.DeleteAccountRequest) -> pb.DeleteAccountResponse:
        """Delete an account."""
        deleted = self._directory.lifecycle.delete_account(request.account)
        return pb.DeleteAccountResponse(account=self._account(deleted))

    def add_credit(self, request: pb.AddCreditRequest) -> pb.AddCreditResponse:
        """Add credit once."""
        entry, account = self._directory.add_credit(
            request.account, request.amount_nano_credits, request.idempotency_id
        )
        return pb.AddCreditResponse(entry=self._entry(entry), account=self._account(account))

    def deduct_credit(self, request: pb.DeductCreditRequest) -> pb.DeductCreditResponse:
        """Take credit back once."""
        entry, account = self._directory.deduct_credit(
            request.account, request.amount_nano_credits, request.idempotency_id
        )
        return pb.DeductCreditResponse(entry=self._entry(entry), account=self._account(account))

    def create_api_key(self, request: pb.CreateApiKeyRequest) -> pb.CreateApiKeyResponse:
        """Create a key and return its secret."""
        limits = self._limits(request.limits)
        created, key = self._directory.create_key(
            request.account, request.name, identity=request.identity, **limits
        )
        return pb.CreateApiKeyResponse(api_key=self._key(created), key_string=key)

    def list_api_keys(self, request: pb.ListApiKeysRequest) -> pb.ListApiKeysResponse:
        """Return a page of keys."""
        of = f"keys/{request.account}"
        (after,) = _position(of, request.page_token, (int,)) or (0,)
        size = page_tokens.size(request.page_size, page_tokens.LARGEST_OF_KEYS)
        found = self._directory.keys(request.account, after=after, limit=size + 1)
        return pb.ListApiKeysResponse(
            api_keys=map(self._key, found[:size]),
            next_page_token=_more(of, found, size, lambda row: (row.id,)),
        )

    def update_api_key(self, request: pb.UpdateApiKeyRequest) -> pb.UpdateApiKeyResponse:
        """Change the limits of a key."""
        given = self._limits(request.limits)
        columns = [messages.LIMITS[path] for path in request.update_mask.paths]
        changed = self._directory.update_key(
            request.account, request.name, {column: given.get(column) for column in columns}
        )
        return pb.UpdateApiKeyResponse(api_key=self._key(changed))

    def _limits(self, limits: account_pb2.KeyLimits) -> dict[str, Any]:
        given = messages.key_limits(limits)
        future = field_rules.later_than(self._now())
        if "expires_at" in given and not future.accepts(given["expires_at"]):
            raise _invalid("limits.expire_time", f"Must be {future.allowed}.")
        known = self._models() if "models" in given else None
        if known is not None:
            wrong = field_rules.unknown_model(given["models"], known)
            if wrong:
                raise _invalid("limits.models.names", wrong)
        return given

    def rotate_api_key(self, request: pb.RotateApiKeyRequest) -> pb.RotateApiKeyResponse:
        """Give a key a new secret, and return it."""
        grace = request.grace_period.ToNanoseconds()
        rotated, key = self._directory.lifecycle.rotate_key(
            request.account, request.name, grace=grace
        )
        return pb.RotateApiKeyResponse(api_key=self._key(rotated), key_string=key)

    def suspend_api_key(self, request: pb.SuspendApiKeyRequest) -> pb.SuspendApiKeyResponse:
        """Suspend a key."""
        suspended = self._directory.lifecycle.suspend_key(request.account, request.name)
        return pb.SuspendApiKeyResponse(api_key=self._key(suspended))

    def resume_api_key(self, request: pb.ResumeApiKeyRequest) -> pb.ResumeApiKeyResponse:
        """Resume a key."""
        resumed = self._directory.lifecycle.resume_key(request.account, request.name)
        return pb.ResumeApiKeyResponse(api_key=self._key(resumed))

    def find_api_key(self, request: pb.FindApiKeyRequest) -> pb.FindApiKeyResponse:
        """Return the key of a secret."""
        found = self._directory.lifecycle.find_key(request.secret)
        return pb.FindApiKeyResponse(api_key=self._key(found))

    def revoke_api_key(self, request: pb.RevokeApiKeyRequest) -> pb.RevokeApiKeyResponse:
        """Revoke a key."""
        revoked = self._directory.revoke_key(request.account, request.name)
        return pb.RevokeApiKeyResponse(api_key=self._key(revoked))

    def list_ledger_entries(
        self, request: pb.ListLedgerEntriesRequest
    ) -> pb.ListLedgerEntriesResponse:
        """Return a page of the ledger."""
        of = f"ledger/{request.account}"
        before = _position(of, request.page_token, (int, int))
        size = page_tokens.size(request.page_size)
        found = self._directory.reports.ledger(request.account, before=before, limit=size + 1)
        return pb.ListLedgerEntriesResponse(
            entries=map(self._entry, found[:size]),
            next_page_token=_more(of, found, size, lambda row: (row.created_at, row.id)),
        )

    def list_usage(self, request: pb.ListUsageRequest) -> pb.ListUsageResponse:
        """Return a page of usage."""
        end, interval = _value(request, "end_time"), _INTERVALS[request.interval]
        start = _value(request, "start_time")
        of = f"usage/{request.account}/{request.key_name}/{request.model}/{interval}/{start}/{end}"
        position = _position(of, request.page_token, (int, int, int, str, str))
        # Without a start, every page uses the start of the first page, which is in the token.
        start = start if start is not None else month_back(self._now())
        begin, *after = position or (start,)
        if position is not None and not field_rules.INSTANT.accepts(begin):
            raise _not_of_this_list()
        size = page_tokens.size(request.page_size)
        found = self._directory.reports.usage(
            request.account or None,
            since=begin,
            until=end,
            interval=interval,
            key_name=request.key_name or None,
            model=request.model or None,
            after=tuple(after) or None,
            limit=size + 1,
        )
        return pb.ListUsageResponse(
            usage=map(self._usage, found[:size]),
            next_page_token=_more(
                of,
                found,
                size,
                lambda row: (begin, row.account_id, row.start, row.key_name, row.model),
            ),
        )

    def list_audit_entries(
        self, request: pb.ListAuditEntriesRequest
    ) -> pb.ListAuditEntriesResponse:
        """Return a page of the audit log."""
        of = f"audit/{request.account}"
        (before,) = _position(of, request.page_token, (int,)) or (None,)
        size = page_tokens.size(request.page_size)
        found = self._directory.reports.acts(request.account or None, before=before, limit=size + 1)
        return pb.ListAuditEntriesResponse(
            entries=map(messages.audit_entry, found[:size]),
            next_page_token=_more(of, found, size, lambda row: (row.id,)),
        )


def recorded(
    actor: str, operation: Callable[[_Request], _Response], request: _Request
) -> _Response:
    """Run an operation, and record it in the audit log if it changes something.

    Args:
        actor: Who runs it. See `AuditEntry.actor`.
        operation: The operation.
        request: Its request.
    """
    of: Any = request
    name = request.DESCRIPTOR.name
    this = audit.Act(
        actor=actor,
        method=name.removesuffix("Request"),
        account=of.name if name == "CreateAccountRequest" else getattr(of, "account", ""),
        request=MessageToJson(request, preserving_proto_field_name=True, indent=None),
    )
    with audit.act(this):
        return operation(request)


def check(request: Message) -> None:
    """Check the fields of a request.

    Raises:
        InvalidRequest: A field is missing or not allowed.
    """
    found = [*_violations(request)]
    if found:
        raise InvalidRequest.of(found)


def _violations(request: Message) -> Iterator[Violation]:
    for field in FIELDS[type(request)]:
        value = _value(request, field.path)
        if value is None:
            if field.required:
                yield Violation(
                    param=field.path, message="Is required.", code="missing_required_parameter"
                )
        elif not field.rule.accepts(value):
            yield Violation(param=field.path, message=f"Must {field.rule.expected(value)}.")


def _value(message: Any, path: str) -> Any:
    """Return the value at a path, or None if it is absent. Times and durations are nanoseconds.

    A field without presence counts as absent if it has its default value.
    """
    for name in path.split("."):
        field = message.DESCRIPTOR.fields_by_name[name]
        if field.has_presence and not message.HasField(name):
            return None
        message = getattr(message, name)
        if not (field.has_presence or field.is_repeated or message):
            return None
    if isinstance(message, (Timestamp, Duration)):
        return messages.nanoseconds(message)
    return message


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
    of: str, found: Sequence[Any], size: int, position: Callable[[Any], tuple[int | str, ...]]
) -> str:
    """Return the token of the next page, or "" if this is the last page."""
    return page_tokens.encode(of, *position(found[size - 1])) if len(found) > size else ""


def _invalid(param: str, message: str) -> InvalidRequest:
    return InvalidRequest.of([Violation(param=param, message=message)])

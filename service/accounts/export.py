"""The usage of all accounts in a month, exact to the nano-credit, for programs.

    usage totals of the month, in one snapshot -> a row for each account, key and model
                                               -> a row with the total of each account
                                               -> a row with the total of all accounts

Rows are read and written a few at a time, so that memory does not depend on their number. The last
row is the total of all accounts: an export without it is incomplete.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import Final

import msgspec
import sqlalchemy as sa

from chatcompletion.credit_amounts import to_text
from service.accounts.key_rows import account_of, subtree
from service.accounts.months import Month
from service.ledger.schema import accounts, api_keys, usage_totals
from service.ledger.store import Store
from service.ledger.usage import SUMS

AT_ONCE: Final = 1000
"""The number of rows that are read and written at once."""

_OWNERS: Final = 200
"""The number of accounts whose usage one query totals."""

USAGE: Final = "usage"
ACCOUNT_TOTAL: Final = "account_total"
TOTAL: Final = "total"
"""The kinds of rows."""


class ExportRow(msgspec.Struct, kw_only=True, gc=False):
    """A row of an export; its fields are the columns."""

    kind: str
    """`USAGE`, `ACCOUNT_TOTAL` or `TOTAL`."""
    month: str
    account: str = ""
    """The name of the account; "" for the total of all accounts."""
    key: str = ""
    """The name of the key; "" for totals."""
    model: str = ""
    """The model, by the name that callers used; "" for totals."""
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    charged: str = ""
    """In credits, as exact decimal text."""
    charged_nano_credits: int = 0


class _Sum:
    """The sums of some rows, which are Python's integers and do not overflow."""

    def __init__(self) -> None:
        self._requests = self._prompt_tokens = self._completion_tokens = self._charged = 0

    def add(self, row: ExportRow) -> ExportRow:
        """Add a row, and return it."""
        self._requests += row.requests
        self._prompt_tokens += row.prompt_tokens
        self._completion_tokens += row.completion_tokens
        self._charged += row.charged_nano_credits
        return row

    def row(self, kind: str, month: str, account: str = "") -> ExportRow:
        return ExportRow(
            kind=kind,
            month=month,
            account=account,
            requests=self._requests,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            charged=to_text(self._charged),
            charged_nano_credits=self._charged,
        )


def rows(store: Store, month: Month, account: str | None = None) -> Iterator[ExportRow]:
    """Return the rows of an export, read a few at a time.

    Args:
        store: The store. It must stay open until the last row is read.
        month: The month. It must begin and end at full hours in UTC.
        account: The name of the only account, whose groups are included; None for all accounts.

    Yields:
        The usage of each account in the order of their creation, by key and model, then its total;
        at the end, the total of all accounts.

    Raises:
        AccountNotFound: There is no such account.
        StoreError: The store is away.
    """
    total = _Sum()
    with store.reading_at_once() as connection:
        store.take_time(connection)
        for owners in _owners(connection, account):
            found = connection.execute(
                _USAGE,
                {"owners": [*owners], "start": month.start, "end": month.end},
                execution_options={"yield_per": AT_ONCE},
            )
            for id_, of_account in groupby(found, itemgetter(0)):
                sum_ = _Sum()
                for _, key, model, requests, prompt, completion, charged in of_account:
                    row = ExportRow(
                        kind=USAGE,
                        month=month.name,
                        account=owners[id_],
                        key=key,
                        model=model,
                        requests=requests,
                        prompt_tokens=prompt,
                        completion_tokens=completion,
                        charged=to_text(charged),
                        charged_nano_credits=charged,
                    )
                    yield sum_.add(row)
                yield total.add(sum_.row(ACCOUNT_TOTAL, month.name, owners[id_]))
    yield total.row(TOTAL, month.name)


def _owners(connection: sa.Connection, account: str | None) -> Iterator[dict[int, str]]:
    """Return the names of some accounts at a time by their ids, in the order of the ids."""
    some = sa.select(accounts.c.id, accounts.c.name).order_by(accounts.c.id).limit(_OWNERS)
    if account is not None:
        some = some.where(accounts.c.id.in_(subtree(account_of(connection, account).id)))
    last = 0
    while found := connection.execute(some.where(accounts.c.id > last)).all():
        yield {row.id: row.name for row in found}
        last = found[-1].id


def as_csv(found: Iterable[ExportRow]) -> Iterator[str]:
    """Return rows as CSV (RFC 4180) with a header, in pieces of whole lines."""
    yield _lines([COLUMNS])
    for some in _some(found):
        yield _lines(map(msgspec.structs.astuple, some))


def as_jsonl(found: Iterable[ExportRow]) -> Iterator[str]:
    """Return rows as JSON Lines, an object for each row, in pieces of whole lines."""
    for some in _some(found):
        yield _encode_lines(some).decode()


COLUMNS: Final = tuple(field.name for field in msgspec.structs.fields(ExportRow))
"""The columns of CSV and the members of JSON objects, in their order."""

FORMATS: Final[Mapping[str, Callable[[Iterable[ExportRow]], Iterator[str]]]] = {
    "csv": as_csv,
    "jsonl": as_jsonl,
}
"""The function of each format."""


def _some(found: Iterable[ExportRow]) -> Iterator[list[ExportRow]]:
    left = iter(found)
    while some := list(islice(left, AT_ONCE)):
        yield some


def _lines(found: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(found)
    return text.getvalue()


_encode_lines: Final = msgspec.json.Encoder().encode_lines

_TOTALLED: Final = (usage_totals.c.account_id, api_keys.c.name, usage_totals.c.model)
_USAGE: Final = (
    sa.select(
        *_TOTALLED,
        # PostgreSQL returns sums of 64-bit integers as decimals.
        *(sa.cast(sa.func.sum(usage_totals.c[name]), sa.BigInteger) for name in SUMS),
    )
    .join(api_keys, api_keys.c.id == usage_totals.c.key_id)
    .where(
        # By their ids, an index finds the month of each account.
        usage_totals.c.account_id.in_(sa.bindparam("owners", expanding=True)),
        usage_totals.c.start >= sa.bindparam("start"),
        usage_totals.c.start < sa.bindparam("end"),
    )
    .group_by(*_TOTALLED)
    .order_by(*_TOTALLED)
)

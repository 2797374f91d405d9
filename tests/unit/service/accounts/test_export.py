import csv
import io
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.accounts import export
from service.accounts.directory import Directory
from service.accounts.export import ACCOUNT_TOTAL, COLUMNS, TOTAL, USAGE, ExportRow
from service.accounts.months import month
from service.errors import AccountNotFound
from service.ledger.migrations import migrate
from service.ledger.schema import usage_totals
from service.ledger.store import Store
from service.ledger.usage import HOUR

NOVEMBER = month("2026-11")
HOSTILE = 'a, "b"; =1+1 ü'


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path}/db")
    migrate(opened)
    yield opened
    opened.close()


@pytest.fixture
def directory(store: Store) -> Directory:
    return Directory(store)


def add(
    store: Store,
    directory: Directory,
    account: str,
    *totals: tuple[Any, ...],
    parent: str = "",
) -> None:
    """Add an account with usage totals: the key, the model, the start and the charge."""
    owner = directory.create_account(account, parent=parent).id
    ids: dict[str, int] = {}
    for key, model, start, charged in totals:
        if key not in ids:
            ids[key] = directory.create_key(account, key)[0].id
        values = {"account_id": owner, "start": start, "key_id": ids[key], "model": model}
        sums = {"requests": 1, "prompt_tokens": 2, "completion_tokens": 3, "charged": charged}
        with store.writing() as connection:
            connection.execute(sa.insert(usage_totals), {**values, **sums})


def brief(rows: Iterator[ExportRow]) -> list[tuple[Any, ...]]:
    return [(r.kind, r.account, r.key, r.model, r.requests, r.charged_nano_credits) for r in rows]


def test_each_account_has_its_rows_and_its_total(store: Store, directory: Directory) -> None:
    start, last = NOVEMBER.start, NOVEMBER.end - HOUR
    add(store, directory, "idle")
    add(
        *(store, directory, "zeta"),
        ("web", "small", start, 1),
        ("web", "small", last, 10),
        ("web", "large", start, 100),
        ("ci", "small", start, 1000),
        ("ci", "small", start - HOUR, 7),
        ("ci", "small", NOVEMBER.end, 7),
    )
    add(store, directory, "alpha", ("web", "small", last, 5))

    assert brief(export.rows(store, NOVEMBER)) == [
        (USAGE, "zeta", "ci", "small", 1, 1000),
        (USAGE, "zeta", "web", "large", 1, 100),
        (USAGE, "zeta", "web", "small", 2, 11),
        (ACCOUNT_TOTAL, "zeta", "", "", 4, 1111),
        (USAGE, "alpha", "web", "small", 1, 5),
        (ACCOUNT_TOTAL, "alpha", "", "", 1, 5),
        (TOTAL, "", "", "", 5, 1116),
    ]
    assert brief(export.rows(store, NOVEMBER, "alpha")) == [
        (USAGE, "alpha", "web", "small", 1, 5),
        (ACCOUNT_TOTAL, "alpha", "", "", 1, 5),
        (TOTAL, "", "", "", 1, 5),
    ]
    with pytest.raises(AccountNotFound):
        list(export.rows(store, NOVEMBER, "nobody"))


def test_an_account_is_exported_with_its_groups(store: Store, directory: Directory) -> None:
    add(store, directory, "acme", ("ci", "small", NOVEMBER.start, 1))
    add(store, directory, "other", ("ci", "small", NOVEMBER.start, 7))
    add(store, directory, "research", parent="acme")
    add(store, directory, "search", ("ci", "small", NOVEMBER.start, 10), parent="research")

    totals = [
        (row.account, row.charged_nano_credits)
        for row in export.rows(store, NOVEMBER, "acme")
        if row.kind != USAGE
    ]
    assert totals == [("acme", 1), ("search", 10), ("", 11)]


def test_a_month_without_usage_has_a_total_of_zero(store: Store, directory: Directory) -> None:
    add(store, directory, "idle")
    (row,) = export.rows(store, NOVEMBER)
    assert (row.kind, row.charged, row.charged_nano_credits) == (TOTAL, "0", 0)


def test_sums_are_exact_beyond_the_integers_of_the_store(
    store: Store, directory: Directory
) -> None:
    for name in ("one", "two", "three"):
        add(store, directory, name, ("key", "model", NOVEMBER.start, 2**62))
    *_, total = export.rows(store, NOVEMBER)
    assert total.charged_nano_credits == 3 * 2**62
    assert total.charged == "13835058055.282163712"


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_accounts_and_rows_are_read_a_few_at_a_time(
    store: Store, directory: Directory, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(export, "_OWNERS", at_once)
    monkeypatch.setattr(export, "AT_ONCE", at_once)
    names = [f"account-{number}" for number in range(5)]
    for name in names:
        add(store, directory, name, ("a", "m", NOVEMBER.start, 1), ("b", "m", NOVEMBER.start, 2))

    pieces = list(export.as_csv(export.rows(store, NOVEMBER)))
    assert max(piece.count("\n") for piece in pieces) <= at_once
    rows = list(csv.reader(io.StringIO("".join(pieces))))
    assert [row[2] for row in rows if row[0] == ACCOUNT_TOTAL] == names
    assert len(rows) == 1 + 3 * 5 + 1


def test_no_row_is_read_before_it_is_needed() -> None:
    read = []

    def rows() -> Iterator[ExportRow]:
        for number in range(10**9):
            read.append(number)
            yield ExportRow(kind=USAGE, month="2026-11")

    assert len(list(islice(export.as_jsonl(rows()), 2))) == 2
    assert len(read) == 2 * export.AT_ONCE


def test_both_formats_have_the_same_values(store: Store, directory: Directory) -> None:
    add(store, directory, HOSTILE, (HOSTILE, HOSTILE, NOVEMBER.start, 1_500_000_000))

    found = list(export.rows(store, NOVEMBER))
    as_csv = list(csv.DictReader(io.StringIO("".join(export.as_csv(found)))))
    as_jsonl = [json.loads(line) for line in "".join(export.as_jsonl(found)).splitlines()]
    assert as_jsonl[0] == {
        "kind": USAGE,
        "month": "2026-11",
        "account": HOSTILE,
        "key": HOSTILE,
        "model": HOSTILE,
        "requests": 1,
        "prompt_tokens": 2,
        "completion_tokens": 3,
        "charged": "1.5",
        "charged_nano_credits": 1_500_000_000,
    }
    assert [{name: str(value) for name, value in row.items()} for row in as_jsonl] == as_csv
    assert [*as_jsonl[-1]] == list(COLUMNS)

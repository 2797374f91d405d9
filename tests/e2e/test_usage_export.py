"""A month of simulated traffic, exported and compared with the ledger to the nano-credit."""

import csv
import io
import json
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import pytest
import sqlalchemy as sa

from service.accounts.directory import Directory
from service.accounts.export import ACCOUNT_TOTAL, TOTAL, USAGE
from service.accounts.months import month
from service.ledger.ids import hold_id
from service.ledger.migrations import migrate
from service.ledger.rows import Expire, Grant, Operation, Place, Release, Settle
from service.ledger.schema import accounts, api_keys, ledger
from service.ledger.store import Store
from tests.support.tree import ROOT

ROUNDS: Final = 100
CALLS: Final = 40
"""The number of rounds, and of the calls of each: thousands of settlements."""

ACCOUNTS: Final = ("acme", 'comma, "quote"', "ünïcode", "one call", "idle")
MODELS: Final = ("small", "large", "vendor/model:latest")
LONGEST: Final = 3600 * 10**9
OCTOBER: Final = month("2026-10")
NOVEMBER: Final = month("2026-11")

Sums = dict[tuple[str, ...], list[int]]
"""Requests, prompt tokens, completion tokens and nano-credits of each account, key and model."""


@dataclass
class Traffic:
    """Calls in a store, in the order of a seed."""

    store: Store
    chance: random.Random = field(default_factory=lambda: random.Random(3))  # noqa: S311  (traffic, not secrets)
    keys: list[tuple[int, int]] = field(default_factory=list)

    def begin(self) -> None:
        """Create accounts with credit and keys. The last has none of either."""
        directory = Directory(self.store)
        for number, name in enumerate(ACCOUNTS):
            id_ = directory.create_account(name).id
            if name == "idle":
                continue
            for key in ("web", "batch")[: 1 + number % 2]:
                self.keys.append((id_, directory.create_key(name, key)[0].id))
            grant = Grant(account_id=id_, amount=10**18, idempotency_id="opening")
            self.store.apply([grant])

    def calls(self, count: int, now: int) -> None:
        """Place holds, and end each in one of the ways in which a hold ends."""
        places: list[Operation] = []
        ends: list[Operation] = []
        late: list[Operation] = []
        for _ in range(count):
            account_id, key_id = self.chance.choice(self.keys)
            of: dict[str, Any] = {
                "hold_id": hold_id(now),
                "account_id": account_id,
                "key_id": key_id,
            }
            way = self.chance.choice(("settle", "settle", "settle", "release", "expire", "lost"))
            place = Place(
                **of,
                amount=self.chance.choice((0, 7, 10**6, 10**12)),
                tokens=0,
                model=self.chance.choice(MODELS),
                owner="traffic",
                lease=0 if way == "expire" else LONGEST,
                key_created_at=self._created(key_id),
            )
            settle = Settle(
                **of,
                # Sometimes more than was held.
                charge=self.chance.randrange(place.amount * 5 // 4 + 1),
                prompt_tokens=self.chance.randrange(10**6),
                completion_tokens=self.chance.randrange(10**4),
                partial=self.chance.random() < 0.1,
                place=place,
            )
            if way != "lost":
                places.append(place)
            if way == "release":
                ends.append(Release(**of))
            elif way == "expire":
                ends.append(Expire(**of))
                late.append(settle)
            else:
                ends.append(settle)
        again = [end for end in ends if self.chance.random() < 0.1]
        for operations in (places, ends, late, again):
            self.store.apply(operations)

    def _created(self, key_id: int) -> int:
        with self.store.reading() as connection:
            wanted = sa.select(api_keys.c.created_at).where(api_keys.c.id == key_id)
            return int(connection.execute(wanted).scalar_one())


def of_ledger(store: Store, start: int, end: int) -> Sums:
    """Add up the charges of the ledger, entry by entry."""
    sums: Sums = defaultdict(lambda: [0, 0, 0, 0], {(): [0, 0, 0, 0]})
    wanted = (
        sa.select(ledger, accounts.c.name.label("account"), api_keys.c.name.label("key"))
        .join(accounts, accounts.c.id == ledger.c.account_id)
        .join(api_keys, api_keys.c.id == ledger.c.key_id)  # grants have none
        .where(ledger.c.created_at >= start, ledger.c.created_at < end)
    )
    with store.reading() as connection:
        for row in connection.execute(wanted):
            added = (1, row.prompt_tokens, row.completion_tokens, -row.amount)
            for of in ((row.account, row.key, row.model), (row.account,), ()):
                sums[of] = [a + b for a, b in zip(sums[of], added, strict=True)]
    return sums


def export(database: str, *arguments: str) -> str:
    program = (sys.executable, "-m", "service", "usage", "export", *arguments)
    environment = {"PATH": os.environ.get("PATH", ""), "CHAT_DATABASE_URL": database}
    # Also where the locale is that of C.
    done = subprocess.run(  # noqa: S603  (our own program)
        program, cwd=ROOT, env={**environment, "LC_ALL": "C"}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode("utf-8")


def of_rows(rows: list[dict[str, Any]]) -> Sums:
    """Return what the rows of an export say, with amounts from their decimal text."""
    found: Sums = {}
    for row in rows:
        whole, _, decimals = str(row["charged"]).partition(".")
        charged = int(whole) * 10**9 + int(decimals.ljust(9, "0"))
        assert charged == int(row["charged_nano_credits"])
        of = {
            USAGE: (row["account"], row["key"], row["model"]),
            ACCOUNT_TOTAL: (row["account"],),
            TOTAL: (),
        }[row["kind"]]
        assert of not in found
        names = ("requests", "prompt_tokens", "completion_tokens")
        found[of] = [*(int(row[name]) for name in names), charged]
    assert rows[-1]["kind"] == TOTAL
    return found


@pytest.mark.time_limit(180)
def test_a_month_of_traffic_is_exported_to_the_nano_credit(database: str) -> None:
    clock = NOVEMBER.start - 10**9
    store = Store(database, clock=lambda: clock)
    migrate(store)
    traffic = Traffic(store)
    traffic.begin()
    if store.engine.dialect.name == "sqlite":
        # From the last second of October to the first of December.
        step = (NOVEMBER.end - NOVEMBER.start + 2 * 10**9) // (ROUNDS - 1)
        for _ in range(ROUNDS):
            traffic.calls(CALLS, clock)
            clock += step
        clock = NOVEMBER.end - 1
        traffic.calls(CALLS, clock)
        clock += 1
        traffic.calls(CALLS, clock)
        months = [OCTOBER, NOVEMBER, month("2026-12")]
    else:
        # The clock is the server's, which passes from one month to another now and then.
        begin = datetime.now(UTC)
        for _ in range(ROUNDS):
            traffic.calls(CALLS, time.time_ns())
        names = {f"{moment:%Y-%m}" for moment in (begin, datetime.now(UTC))}
        months = [month(name) for name in sorted(names)]

    settled = 0
    for each in months:
        expected = of_ledger(store, each.start, each.end)
        as_csv = export(database, "--month", each.name)
        as_jsonl = export(database, "--month", each.name, "--format", "jsonl")
        assert of_rows(list(csv.DictReader(io.StringIO(as_csv)))) == expected
        assert of_rows([json.loads(line) for line in as_jsonl.splitlines()]) == expected
        settled += expected[()][0]
    assert settled > ROUNDS * CALLS // 2
    store.close()

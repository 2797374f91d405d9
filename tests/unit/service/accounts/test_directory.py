"""The directory on a SQLite file: edge cases of hours."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.accounts.directory import Directory
from service.ledger.migrations import migrate
from service.ledger.rows import Grant, Place, Settle
from service.ledger.store import Store
from service.ledger.usage import HOUR

START = 500_000 * HOUR


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    """Three consecutive hours, each with one call that was charged 10 nano-credits."""
    now = START
    store = Store(f"sqlite:///{tmp_path}/accounts.db", clock=lambda: now)
    migrate(store)
    made = Directory(store)
    account = made.create_account("acme").id
    key = made.create_key("acme", "ci")[0].id
    store.apply([Grant(account_id=account, amount=1000, idempotency_id="first")])
    for number in range(3):
        now = START + number * HOUR
        ids: dict[str, Any] = {"hold_id": f"hold-{number}", "account_id": account, "key_id": key}
        store.apply(
            [
                Place(**ids, amount=10, tokens=1, model="m", owner="test", lease=HOUR),
                Settle(**ids, charge=10, prompt_tokens=1, completion_tokens=1),
            ]
        )
    yield made
    store.close()


@pytest.mark.parametrize(
    ("since", "until", "hours"),
    [
        (0, None, [0, 1, 2]),
        (1, None, [0, 1, 2]),
        (HOUR, None, [1, 2]),
        (HOUR + 1, 2 * HOUR, [1]),
        (HOUR, 2 * HOUR + 1, [1, 2]),
        (HOUR, HOUR, []),
        (3 * HOUR, None, []),
    ],
)
def test_usage_is_of_whole_hours(
    directory: Directory, since: int, until: int | None, hours: list[int]
) -> None:
    used = directory.reports.usage(
        "acme",
        since=START + since,
        until=None if until is None else START + until,
        interval=HOUR,
    )
    assert [(total.start, total.charged) for total in used] == [
        (START + hour * HOUR, 10) for hour in hours
    ]

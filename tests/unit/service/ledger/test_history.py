"""The mark that shows that the store has forgotten charges."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.accounts.directory import Directory
from service.ledger.history import FILE, WRITTEN_EVERY, History
from service.ledger.migrations import migrate
from service.ledger.rows import Grant
from service.ledger.store import Store, StoreError

Lines = Callable[[], list[dict[str, Any]]]


class Kept:
    """Two stores, of which the first is remembered."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.seconds = 100.0
        self.stores = [Store(f"sqlite:///{directory}/{name}") for name in ("a", "b")]
        for store in self.stores:
            migrate(store)
            Directory(store).create_account("acme")
        self.used = self.stores[0]

    def grant(self, store: Store, *names: str) -> None:
        for name in names:
            store.apply([Grant(account_id=1, amount=5, idempotency_id=name)])

    def history(self, store: Store | None = None) -> History:
        """Return the history as a process that starts with this store would have it."""
        return History(store or self.used, str(self.directory), clock=lambda: self.seconds)

    @property
    def entry(self) -> Any:
        content = (self.directory / FILE).read_text()
        return json.loads(content)["entry"] if content else None


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    for store in made.stores:
        store.close()


def _forgotten(lines: Lines) -> list[dict[str, Any]]:
    return [line for line in lines() if line["event"] == "store has forgotten charges"]


def test_a_ledger_that_grows_has_forgotten_nothing(kept: Kept, lines: Lines) -> None:
    history = kept.history()
    assert history.check()  # nothing is in it
    for name in "abc":
        kept.grant(kept.used, name)
        assert history.check()
    assert kept.history().check()
    assert _forgotten(lines) == []


def test_a_process_that_starts_with_an_older_copy_logs_it_once(kept: Kept, lines: Lines) -> None:
    for store in kept.stores:
        kept.grant(store, "a")
    kept.grant(kept.used, "b", "c")
    assert kept.history().check()
    older = kept.stores[1]
    history = kept.history(older)
    assert not history.check()
    assert history.check()
    (line,) = _forgotten(lines)
    assert (line["level"], line["entry"], line["newest"]) == ("error", 3, 1)
    assert line["time"] >= line["newest_time"]
    assert "docs/backup.md" in line["hint"]
    assert kept.entry == 1
    assert kept.history(older).check()


def test_another_entry_with_the_same_id_is_not_the_mark(kept: Kept, lines: Lines) -> None:
    kept.grant(kept.used, "a")
    assert kept.history().check()
    other = kept.stores[1]
    kept.grant(other, "b", "c")
    assert not kept.history(other).check()
    assert _forgotten(lines)[0]["newest"] == 2


def test_an_empty_store_has_forgotten_all(kept: Kept, lines: Lines) -> None:
    kept.grant(kept.used, "a")
    assert kept.history().check()
    assert not kept.history(kept.stores[1]).check()
    assert _forgotten(lines)[0]["newest"] is None
    assert kept.entry is None
    assert kept.history(kept.stores[1]).check()


def test_the_file_is_written_now_and_then_and_only_if_the_ledger_grew(kept: Kept) -> None:
    history = kept.history()
    kept.grant(kept.used, "a")
    history.check()
    assert kept.entry == 1
    kept.grant(kept.used, "b")
    kept.seconds += WRITTEN_EVERY - 1
    history.check()
    assert kept.entry == 1
    kept.seconds += 1
    history.check()
    assert kept.entry == 2
    (kept.directory / FILE).unlink()
    kept.seconds += WRITTEN_EVERY
    history.check()
    assert not (kept.directory / FILE).exists()


def test_a_file_that_cannot_be_read_or_written_is_no_obstacle(kept: Kept, lines: Lines) -> None:
    (kept.directory / FILE).write_bytes(b'{"entry"')
    kept.grant(kept.used, "a")
    assert kept.history().check()
    nowhere = History(kept.used, str(kept.directory / "absent"), clock=lambda: kept.seconds)
    assert nowhere.check()
    assert nowhere.check()
    assert _forgotten(lines) == []


def test_a_store_that_is_away_has_forgotten_nothing(kept: Kept, lines: Lines) -> None:
    history = kept.history()
    kept.grant(kept.used, "a")
    history.check()
    place = Path(kept.used.name)
    place.rename(place.with_name("aside"))
    kept.used.close()
    with pytest.raises(StoreError):
        history.check()
    place.with_name("aside").rename(place)
    assert history.check()
    assert _forgotten(lines) == []

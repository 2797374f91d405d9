import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from service.accounts.journal import Ending, Journal, JournalError
from service.accounts.rows import Release, Settle


def settle(number: int = 1, **changes: Any) -> Settle:
    fields: dict[str, Any] = {
        "hold_id": f"hold-{number}",
        "account_id": 1,
        "key_id": 2,
        "charge": 3 * 10**20,
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "partial": True,
        "estimated": False,
    }
    return Settle(**{**fields, **changes})


RELEASE = Release(hold_id="hold-0", account_id=1, key_id=2)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "some" / "journal"


def crash(journal: Journal) -> None:
    """Give up the files as the kernel does when a process is killed."""
    journal._close_all()


def files(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def test_what_is_kept_comes_back_in_its_order(directory: Path) -> None:
    journal = Journal(str(directory))
    assert journal.is_empty()
    endings: list[Ending] = [settle(1), RELEASE, settle(2, estimated=True)]
    for ending in endings:
        journal.append(ending)

    assert not journal.is_empty()
    assert list(journal.kept().endings) == endings
    journal.close()


def test_what_is_forgotten_is_gone(directory: Path) -> None:
    journal = Journal(str(directory))
    journal.append(settle())
    assert journal.forget(journal.kept())

    assert journal.is_empty()
    assert journal.kept().endings == []
    journal.append(RELEASE)
    assert journal.kept().endings == [RELEASE]
    journal.close()


def test_what_was_appended_meanwhile_is_not_forgotten(directory: Path) -> None:
    journal = Journal(str(directory))
    journal.append(settle(1))
    kept = journal.kept()
    journal.append(settle(2))

    assert not journal.forget(kept)
    assert journal.kept().endings == [settle(1), settle(2)]
    journal.close()


def test_what_a_killed_process_left_is_found_by_the_next(directory: Path) -> None:
    first = Journal(str(directory))
    first.append(settle(1))
    crash(first)
    second = Journal(str(directory))
    second.append(settle(2))
    assert second.kept().endings == [settle(1), settle(2)]
    crash(second)
    third = Journal(str(directory))

    assert len(third.kept().endings) == 2
    assert third.forget(third.kept())
    assert len(files(directory)) == 1  # its own
    third.close()
    assert files(directory) == []


def test_a_killed_process_leaves_no_file_for_ever(directory: Path) -> None:
    for _ in range(3):
        crash(Journal(str(directory)))
    last = Journal(str(directory))
    assert last.kept().endings == []
    assert not last.is_empty()  # there are files to be removed
    assert last.forget(last.kept())
    last.close()

    assert files(directory) == []


def test_a_process_that_lives_keeps_its_own(directory: Path) -> None:
    first, second = Journal(str(directory)), Journal(str(directory))
    first.append(settle())

    assert second.is_empty()
    second.close()
    assert first.kept().endings == [settle()]
    first.close()
    assert len(files(directory)) == 1  # something waits in it


def test_processes_that_start_together_take_nothing_from_each_other(directory: Path) -> None:
    journals: list[Journal] = []
    start = threading.Barrier(8)

    def begin() -> None:
        start.wait()
        journal = Journal(str(directory))
        journal.append(settle())
        journals.append(journal)

    threads = [threading.Thread(target=begin, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(journals) == 8
    for journal in journals:
        assert journal.kept().endings == [settle()]
        crash(journal)


def test_threads_append_whole_lines(directory: Path) -> None:
    journal = Journal(str(directory))

    def append(thread: int) -> None:
        for number in range(20):
            journal.append(settle(100 * thread + number))

    threads = [threading.Thread(target=append, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal.kept().endings) == 80
    journal.close()


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_line_is_skipped(directory: Path, cut: int) -> None:
    journal = Journal(str(directory))
    journal.append(settle(1))
    journal.append(settle(2))
    crash(journal)
    (file,) = files(directory)
    file.write_bytes(file.read_bytes()[:-cut])
    next_one = Journal(str(directory))

    assert next_one.kept().endings == [settle(1)]
    crash(next_one)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"kind":"settle"}',
        b'{"kind":"grant","account_id":1,"amount":10,"idempotency_id":"x"}',
        b'{"kind":["settle"]}',
        json.dumps({"kind": "release", "hold_id": "x", "account_id": 1}).encode(),
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_none_of_ours_is_skipped(directory: Path, line: bytes) -> None:
    crash(Journal(str(directory)))
    (file,) = files(directory)
    sound = json.dumps({"kind": "release", "hold_id": "hold-0", "account_id": 1, "key_id": 2})
    file.write_bytes(line + b"\n" + sound.encode() + b"\n")
    journal = Journal(str(directory))

    assert journal.kept().endings == [RELEASE]
    crash(journal)


def test_a_full_disk_spoils_no_other_line(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(str(directory))
    journal.append(settle(1))
    write = os.write
    room = [10]

    def short(file: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data[: room.pop()])

    with monkeypatch.context() as full:
        full.setattr(os, "write", short)
        with pytest.raises(OSError, match="No space left"):
            journal.append(settle(2))
    journal.append(settle(3))

    assert journal.kept().endings == [settle(1), settle(3)]
    journal.close()


def test_a_short_write_is_gone_on_with(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(str(directory))
    write = os.write
    with monkeypatch.context() as slow:
        slow.setattr(os, "write", lambda file, data: write(file, data[:7]))
        journal.append(settle(1))

    assert journal.kept().endings == [settle(1)]
    journal.close()


def test_it_is_on_the_disk_when_append_returns(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(str(directory))
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
    journal.append(settle())

    assert synced == [os.path.getsize(files(directory)[0])]
    journal.close()


def test_only_its_owner_reads_it(directory: Path) -> None:
    journal = Journal(str(directory))

    assert directory.stat().st_mode & 0o077 == 0
    assert files(directory)[0].stat().st_mode & 0o077 == 0
    journal.close()


def test_a_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    before = len(os.listdir("/proc/self/fd"))

    for place in (file, file / "below"):
        with pytest.raises(JournalError, match=str(place)):
            Journal(str(place))
    assert len(os.listdir("/proc/self/fd")) == before

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from service.ledger import journal as module
from service.ledger.journal import Ending, Journal, JournalError, Unwritten
from service.ledger.rows import Place, Release, Settle


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


def test_the_size_is_that_of_what_waits_in_all_files(directory: Path) -> None:
    journal = Journal(str(directory))
    assert journal.size() == 0
    journal.append(settle(1))
    one = journal.size()
    assert one > 0
    crash(journal)
    assert journal.size() == 0

    following = Journal(str(directory))
    following.append(settle(2))
    assert following.size() == 2 * one
    following.forget(following.kept())
    assert following.size() == 0
    following.close()


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


def test_what_comes_together_is_flushed_together(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(str(directory))
    endings = [settle(number) for number in range(20)]
    synced: list[int] = []
    with monkeypatch.context() as counted:
        counted.setattr(os, "fsync", synced.append)
        assert journal.append_each(endings) == {}

    assert len(synced) == 1
    assert journal.kept().endings == endings
    journal.close()


def test_where_there_is_room_for_some_they_are_kept_and_the_others_told(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(str(directory))
    write = os.write

    def short(file: int, data: bytes) -> int:
        if b"hold-1" in data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data)

    with monkeypatch.context() as full:
        full.setattr(os, "write", short)
        errors = journal.append_each([settle(number) for number in range(3)])

    assert {ending.hold_id: str(error) for ending, error in errors.items()} == {
        "hold-1": f"[Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}"
    }
    assert journal.kept().endings == [settle(0), settle(2)]
    journal.close()


def test_what_would_go_to_a_deleted_file_is_not_kept(directory: Path) -> None:
    journal = Journal(str(directory))
    journal.append(settle(1))
    (file,) = files(directory)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="deleted"):
        journal.append(settle(2))
    assert [ending.hold_id for ending in journal.append_each([settle(3)])] == ["hold-3"]
    # Earlier settlements are still applied, if the process lives.
    assert journal.kept().endings == [settle(1)]
    journal.close()


def test_what_is_told_as_not_kept_is_not_there(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(str(directory))
    # Writes of both together, of the first, of the second.
    left: list[Exception | None] = [OSError(errno.EIO, os.strerror(errno.EIO)), MemoryError(), None]
    fsync = os.fsync

    def fails(file: int) -> None:
        error = left.pop(0)
        if error is not None:
            raise error
        fsync(file)

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails)
        errors = journal.append_each([settle(1), settle(2)])

    assert {ending.hold_id: type(error) for ending, error in errors.items()} == {
        "hold-1": MemoryError
    }
    assert journal.kept().endings == [settle(2)]
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


SETTLEMENT: Final = {
    "kind": "settle",
    "hold_id": "x",
    "account_id": 1,
    "key_id": 2,
    "charge": 3,
    "prompt_tokens": 4,
    "completion_tokens": 5,
}
PLACE: Final[dict[str, Any]] = {
    "hold_id": "hold-1",
    "account_id": 1,
    "key_id": 2,
    "amount": 3,
    "tokens": 4,
    "model": "m",
    "owner": "o",
    "lease": 5,
    "key_created_at": 6,
}
UNREADABLE: Final = (
    b"{}",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"kind":"settle"}',
    b'{"kind":"grant","account_id":1,"amount":10,"idempotency_id":"x"}',
    b'{"kind":["settle"]}',
    json.dumps({"kind": "release", "hold_id": "x", "account_id": 1}).encode(),
    b"[" * 100_000,
    b'{"kind":"settle","x":' + b"[" * 100_000,
    *(
        json.dumps({**SETTLEMENT, name: number}).encode()
        for name in ("account_id", "key_id", "prompt_tokens", "completion_tokens")
        for number in (2**63, -(2**63) - 1, 10**400)
    ),
    json.dumps({**SETTLEMENT, "charge": 10**400}).encode(),
    json.dumps({**SETTLEMENT, "place": {}}).encode(),
    *(
        json.dumps({**SETTLEMENT, "place": {**PLACE, name: number}}).encode()
        for name, number in (("amount", -1), ("amount", 2**63), ("tokens", 2**63))
    ),
    json.dumps(SETTLEMENT).replace("4", "1e400").encode(),
)


@pytest.mark.parametrize("line", UNREADABLE, ids=range(len(UNREADABLE)))
def test_a_whole_line_that_is_none_of_ours_is_told_apart(directory: Path, line: bytes) -> None:
    crash(Journal(str(directory)))
    (file,) = files(directory)
    sound = json.dumps({"kind": "release", "hold_id": "hold-0", "account_id": 1, "key_id": 2})
    file.write_bytes(line + b"\n\n" + sound.encode() + b"\n" + b'{"kind":"torn')
    journal = Journal(str(directory))

    assert journal.kept().endings == [RELEASE]
    assert journal.kept().unreadable == [line]
    crash(journal)


def test_numbers_of_64_bits_are_read(directory: Path) -> None:
    journal = Journal(str(directory))
    largest = settle(account_id=2**63 - 1, key_id=-(2**63), charge=2**126, prompt_tokens=2**63 - 1)
    with_hold = settle(2, place=Place(**{**PLACE, "amount": 2**63 - 1}))
    journal.append(largest, with_hold)

    assert journal.kept().endings == [largest, with_hold]
    assert journal.kept().unreadable == []
    journal.close()


# ------------------------------------------------------------------------------------- rejected


def rejected(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.glob("*.rejected"))


def test_what_is_set_aside_is_on_the_disk_and_never_replayed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(str(directory))
    synced: list[int] = []
    with monkeypatch.context() as watched:
        watched.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_ino))
        assert journal.set_aside([settle(1)], [b"no ending"]) == 2
    (file,) = directory.glob("*.rejected")

    assert synced == [file.stat().st_ino, directory.stat().st_ino]
    assert file.stat().st_mode & 0o077 == 0
    lines = file.read_bytes().splitlines()
    assert json.loads(lines[0])["hold_id"] == "hold-1"
    assert lines[1:] == [b"no ending"]
    crash(journal)
    next_one = Journal(str(directory))
    assert next_one.kept().endings == []
    crash(next_one)


def test_what_was_set_aside_is_replayed_where_an_operator_says_so(directory: Path) -> None:
    journal = Journal(str(directory))
    journal.set_aside([settle(1), settle(2)], [])
    crash(journal)
    (file,) = directory.glob("*.rejected")
    file.rename(file.with_suffix(".journal"))
    next_one = Journal(str(directory))

    assert next_one.kept().endings == [settle(1), settle(2)]
    crash(next_one)


def test_what_could_not_be_forgotten_is_set_aside_once(directory: Path) -> None:
    journal = Journal(str(directory))
    journal.append(settle(1))
    kept = journal.kept()
    assert journal.set_aside(kept.endings, [b"x"]) == 2
    journal.append(settle(2))
    assert not journal.forget(kept)
    kept = journal.kept()
    assert journal.set_aside(kept.endings, [b"x"]) == 1
    assert journal.forget(kept)

    assert rejected(directory).count(b"\n") == 3
    # A later line counts as a new one, even if it is equal.
    assert journal.set_aside([], [b"x"]) == 1
    journal.close()


def test_what_cannot_be_set_aside_can_be_later(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(str(directory))

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            journal.set_aside([settle(1)], [])
    assert rejected(directory) == b""
    assert journal.set_aside([settle(1)], []) == 1
    assert rejected(directory).count(b"\n") == 1
    journal.close()


def test_a_file_that_cannot_be_removed_is_still_there_to_be_forgotten(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Journal(str(directory))
    first.append(settle(1))
    crash(first)
    journal = Journal(str(directory))

    def broken(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as disk:
        disk.setattr(Path, "unlink", broken)
        with pytest.raises(OSError, match="Input/output"):
            journal.forget(journal.kept())
    assert journal.kept().endings == [settle(1)]
    assert journal.forget(journal.kept())
    assert len(files(directory)) == 1
    journal.close()


# ------------------------------------------------------------------------------------- the disk


def ends_after(size: int, code: int) -> Callable[[int, bytes], int]:
    """Return an `os.write` that writes some bytes once, and then fails."""
    write = os.write
    room = [size]

    def short(file: int, data: bytes) -> int:
        if not room:
            raise OSError(code, os.strerror(code))
        return write(file, data[: room.pop()])

    return short


def test_a_full_disk_spoils_no_other_line(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(str(directory))
    journal.append(settle(1))
    with monkeypatch.context() as full:
        full.setattr(os, "write", ends_after(10, errno.ENOSPC))
        with pytest.raises(OSError, match="No space left"):
            journal.append(settle(2))
    journal.append(settle(3))

    assert journal.kept().endings == [settle(1), settle(3)]
    journal.close()


def test_a_piece_that_cannot_be_taken_back_spoils_no_other_line(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(str(directory))
    journal.append(settle(1))

    def broken(file: int, size: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", ends_after(10, errno.EIO))
        disk.setattr(os, "ftruncate", broken)
        with pytest.raises(OSError, match="Input/output"):
            journal.append(settle(2))
    journal.append(settle(3))
    journal.append(settle(4))

    assert journal.kept().endings == [settle(1), settle(3), settle(4)]
    assert len(journal.kept().unreadable) == 1
    journal.close()


def test_several_are_kept_together_or_not_at_all(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(str(directory))
    with monkeypatch.context() as full:
        full.setattr(os, "write", ends_after(300, errno.ENOSPC))
        with pytest.raises(OSError, match="No space left"):
            journal.append(settle(1), settle(2), settle(3))
    assert journal.is_empty()
    journal.append(settle(1), settle(2), settle(3))
    assert journal.kept().endings == [settle(1), settle(2), settle(3)]
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


def test_the_name_of_the_file_is_on_the_disk_before_anything_is_kept(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, int]] = []

    def watch(file: int) -> None:
        synced.append((os.fstat(file).st_ino, len(files(directory))))

    monkeypatch.setattr(os, "fsync", watch)
    journal = Journal(str(directory))

    assert synced == [(directory.stat().st_ino, 1)]
    journal.close()


def test_what_is_forgotten_is_forgotten_on_the_disk(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(str(directory))
    journal.append(settle())
    synced: list[tuple[int, int]] = []

    def watch(file: int) -> None:
        synced.append((os.fstat(file).st_ino, os.fstat(file).st_size))

    with monkeypatch.context() as watched:
        watched.setattr(os, "fsync", watch)
        assert journal.forget(journal.kept())

    assert synced == [(files(directory)[0].stat().st_ino, 0)]
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


# ------------------------------------------------------------------------------------ in memory


def test_what_is_in_memory_is_kept_in_its_order_until_it_is_forgotten() -> None:
    unwritten = Unwritten(lost=lambda _: None)
    for number in range(4):
        unwritten.add(settle(number))
    unwritten.forget(unwritten.endings()[1:3])
    unwritten.forget([settle(7)])

    assert unwritten.endings() == [settle(0), settle(3)]


def test_too_many_in_memory_lose_the_oldest_and_say_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MOST_UNWRITTEN", 3)
    lost: list[int] = []
    unwritten = Unwritten(lost.append)
    for number in range(5):
        unwritten.add(settle(number))

    assert unwritten.endings() == [settle(2), settle(3), settle(4)]
    assert lost == [1, 1]
    assert [record.message for record in caplog.records] == ["a settlement is lost"] * 2
    told = vars(caplog.records[0])["chat_fields"]
    assert (told["kind"], told["hold_id"], told["charge"]) == ("settle", "hold-0", 3 * 10**20)


def test_what_is_in_memory_when_the_process_ends_is_lost_and_told(directory: Path) -> None:
    lost: list[int] = []
    journal = Journal(str(directory), lost=lost.append)
    for number in range(3):
        journal.unwritten.add(settle(number))
    journal.close()
    assert lost == [1, 1, 1]
    # A call that ends even later.
    journal.unwritten.add(settle(4))
    assert lost == [1, 1, 1, 1]
    assert journal.unwritten.endings() == []

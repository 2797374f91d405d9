import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from process.settings import Address, UnixAddress
from process.unix_sockets import MODE, is_stale, listening, placed


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def place(tmp_path: Path) -> UnixAddress:
    return UnixAddress(str(tmp_path / "a.sock"))


def _bound(stack: ExitStack, place: UnixAddress) -> socket.socket:
    bound = stack.enter_context(socket.socket(socket.AF_UNIX))
    bound.bind(place.path)
    return bound


def test_user_and_group_can_connect_and_the_file_ends_with_the_listener(place: UnixAddress) -> None:
    with listening(place):
        assert stat.S_IMODE(Path(place.path).stat().st_mode) == MODE == 0o660
    assert not Path(place.path).exists()


def test_nobody_else_can_connect_until_the_file_has_its_mode(
    stack: ExitStack, place: UnixAddress
) -> None:
    with placed(place):
        _bound(stack, place)
        assert stat.S_IMODE(Path(place.path).stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(place.path).stat().st_mode) == MODE


def test_the_file_of_a_dead_process_is_replaced(stack: ExitStack, place: UnixAddress) -> None:
    _bound(stack, place).close()
    assert is_stale(place)

    listener = stack.enter_context(listening(place))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(place.path)
        listener.accept()[0].close()


def test_the_file_of_a_live_process_stays(stack: ExitStack, place: UnixAddress) -> None:
    stack.enter_context(listening(place))
    before = Path(place.path).stat().st_ino

    with pytest.raises(OSError, match="in use"), listening(place):
        pass
    assert Path(place.path).stat().st_ino == before


def test_a_full_queue_is_a_sign_of_life(stack: ExitStack, place: UnixAddress) -> None:
    _bound(stack, place).listen(0)
    waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
    waiting.connect(place.path)

    with pytest.raises(OSError, match="in use"):
        is_stale(place)


def test_another_file_stays(place: UnixAddress) -> None:
    Path(place.path).write_text("kept")

    with pytest.raises(OSError, match="not a socket"), placed(place):
        pass
    assert Path(place.path).read_text() == "kept"


def test_a_file_that_another_process_made_since_stays(place: UnixAddress) -> None:
    with listening(place):
        Path(place.path).unlink()
        Path(place.path).write_text("another's")
    assert Path(place.path).exists()


def test_an_absent_folder_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError),
        listening(UnixAddress(str(tmp_path / "no" / "a.sock"))),
    ):
        pass


def test_nothing_is_done_for_a_tcp_address() -> None:
    with placed(Address("127.0.0.1", 0)):
        pass

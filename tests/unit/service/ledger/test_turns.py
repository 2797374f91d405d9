"""Each `Turns` of a test stands for a process: their files are locked apart from each other."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.ledger.turns import Turns
from tests.support.waiting import PATIENCE


class Processes:
    """Makes `Turns` of one file."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path = path
        self._stack = stack

    def start(self, *, patience: float = PATIENCE) -> Turns:
        turns = Turns(str(self._path), patience=patience)
        self._stack.callback(turns.close)
        return turns


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with ExitStack() as stack:
        yield Processes(tmp_path / "turns", stack)


def _threads() -> int:
    return sum(thread.name == "turns" for thread in threading.enumerate())


def test_one_process_at_a_time_has_the_turn(processes: Processes) -> None:
    inside, most = 0, 0
    counting = threading.Lock()

    def work(turns: Turns) -> None:
        nonlocal inside, most
        for _ in range(100):
            with turns.turn():
                with counting:
                    inside += 1
                    most = max(most, inside)
                with counting:
                    inside -= 1

    # Two threads each: those of one process take turns, too.
    starts = [processes.start() for _ in range(3)]
    workers = [threading.Thread(target=work, args=(turns,)) for turns in starts * 2]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE)

    assert (most, inside) == (1, 0)


def test_who_waits_has_the_turn_when_it_is_given_back(processes: Processes) -> None:
    first, second = processes.start(), processes.start()
    order = []
    waits = threading.Event()

    def wait() -> None:
        waits.set()
        with second.turn():
            order.append("second")

    waiting = threading.Thread(target=wait)
    with first.turn():
        waiting.start()
        assert waits.wait(PATIENCE)
        order.append("first")
    waiting.join(PATIENCE)

    assert order == ["first", "second"]


def test_nobody_waits_for_a_process_that_is_stopped(processes: Processes) -> None:
    stopped, other = processes.start(), processes.start(patience=0.01)
    with stopped.turn():
        # Without the turn, again and again, and in more threads than one.
        for _ in range(3):
            assert not other._take()
        thread = threading.Thread(target=lambda: other.turn().__enter__())
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_turn_that_comes_too_late_is_given_back(processes: Processes) -> None:
    stopped, late, third = processes.start(), processes.start(patience=0.01), processes.start()
    with stopped.turn(), late.turn():
        pass

    # If `late` had kept what came to it, neither would get a turn any more.
    assert third._take()
    third._give_back()
    late._patience = PATIENCE
    assert late._take()
    late._give_back()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_gives_the_turn_back(processes: Processes, error: type[BaseException]) -> None:
    first, second = processes.start(), processes.start()
    with pytest.raises(error), first.turn():
        raise error

    assert second._take()
    second._give_back()


def test_a_file_that_cannot_be_made_costs_no_wait(tmp_path: Path) -> None:
    turns = Turns(str(tmp_path / "nowhere" / "turns"), patience=PATIENCE)

    assert not turns._take()
    assert not turns._take()
    turns.close()


def test_nothing_is_left_open(processes: Processes) -> None:
    before = len(os.listdir("/proc/self/fd")), _threads()
    first, second = processes.start(), processes.start(patience=0.01)
    with first.turn(), second.turn():
        pass
    second._patience = PATIENCE
    with second.turn():
        pass
    for turns in (first, second):
        turns.close()
        turns.close()

    assert len(os.listdir("/proc/self/fd")) == before[0]
    # Its thread ends by itself.
    for thread in threading.enumerate():
        if thread.name == "turns":
            thread.join(PATIENCE)
    assert _threads() == before[1]


def test_a_turn_after_the_close_opens_the_file_again(processes: Processes) -> None:
    turns = processes.start()
    with turns.turn():
        pass
    turns.close()

    assert turns._take()
    turns._give_back()

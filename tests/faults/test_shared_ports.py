"""The ports that workers share: nobody else gets them, from the hold on."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from process.settings import Address
from process.taken_ports import cannot_listen, free_port
from process.workers.ports import TakenError, hold, hold_all, share, shareable

FREE = Address("127.0.0.1", 0)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _held(stack: ExitStack, address: Address = FREE) -> Address:
    held = stack.enter_context(hold(address))
    return Address(*held.getsockname()[:2])


def _listen(stack: ExitStack, address: Address, *, reuses: bool = True) -> socket.socket:
    """Listen as a server that shares nothing."""
    listener = stack.enter_context(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuses))
    listener.bind((address.host, address.port))
    listener.listen()
    return listener


def _worker(stack: ExitStack, address: Address) -> socket.socket:
    listener = stack.enter_context(socket.socket())
    share(listener)
    listener.bind((address.host, address.port))
    listener.listen()
    return listener


def test_a_free_port_is_one_that_can_be_listened_on(stack: ExitStack) -> None:
    taken = _listen(stack, FREE).getsockname()[1]
    free = free_port(Address("127.0.0.1", taken))

    assert free is not None
    assert taken < free <= taken + 50
    assert free_port(Address("127.0.0.1", taken), apart_from={free}) != free
    _listen(stack, Address("127.0.0.1", free))
    assert free_port(Address("127.0.0.1", taken)) != free
    assert free_port(Address("127.0.0.1", 65535)) is None


def test_no_default_port_of_another_listener_is_suggested() -> None:
    assert free_port(Address("127.0.0.1", 9464)) not in {9465, None}
    assert free_port(Address("127.0.0.1", 50051)) not in {50052, None}


def test_only_a_taken_port_has_a_suggestion() -> None:
    refused = OSError(errno.EACCES, "Permission denied")

    text = cannot_listen("A_LISTEN", Address("127.0.0.1", 80), refused)
    assert text == "A_LISTEN: cannot listen on 127.0.0.1:80: Permission denied"


def test_all_taken_ports_are_reported_and_nothing_stays_held(stack: ExitStack) -> None:
    taken = [Address(*_listen(stack, FREE).getsockname()[:2]) for _ in range(2)]
    wanted = {"A": taken[0], "B": FREE, "C": taken[1]}
    with ExitStack() as inner, pytest.raises(TakenError) as refused:
        hold_all(wanted, inner)
    assert [line[0] for line in str(refused.value).splitlines()] == ["A", "C"]

    with ExitStack() as longer:
        with ExitStack() as shorter:
            held = shareable(hold_all({"B": FREE, "D": FREE}, shorter, longer, kept={"B"}))
        _listen(stack, held["D"])
        with pytest.raises(OSError, match="in use"):
            _listen(stack, held["B"])
    _listen(stack, held["B"])


def test_workers_share_a_port_that_is_held(stack: ExitStack) -> None:
    address = _held(stack)
    workers = [_worker(stack, address) for _ in range(2)]
    for _ in range(64):
        stack.enter_context(socket.create_connection((address.host, address.port)))

    accepted = []
    for worker in workers:
        worker.setblocking(False)
        accepted.append(0)
        try:
            while True:
                stack.enter_context(worker.accept()[0])
                accepted[-1] += 1
        except BlockingIOError:
            pass

    # The holder gets none, and each worker its share.
    assert sum(accepted) == 64
    assert all(accepted)


@pytest.mark.parametrize("serves", [False, True], ids=["no worker yet", "workers"])
@pytest.mark.parametrize("reuses", [False, True])
def test_no_other_process_listens_where_a_port_is_held(
    stack: ExitStack, reuses: bool, serves: bool
) -> None:
    address = _held(stack)
    if serves:
        _worker(stack, address)

    with pytest.raises(OSError, match="in use"):
        _listen(stack, address, reuses=reuses)


def test_a_port_is_held_once(stack: ExitStack) -> None:
    address = _held(stack)

    with pytest.raises(OSError, match="in use"):
        hold(address)
    _worker(stack, address)
    with pytest.raises(OSError, match="in use"):
        hold(address)


@pytest.mark.parametrize("reuses", [False, True])
def test_a_port_of_another_process_is_not_held(stack: ExitStack, reuses: bool) -> None:
    listener = _listen(stack, FREE, reuses=reuses)

    with pytest.raises(OSError, match="in use"):
        hold(Address(*listener.getsockname()))


def test_the_port_of_a_process_that_just_ended_is_held(stack: ExitStack) -> None:
    listener = _listen(stack, FREE)
    address = Address(*listener.getsockname())
    client = socket.create_connection((address.host, address.port))
    # Who closes first keeps the port in TIME_WAIT.
    listener.accept()[0].close()
    client.close()
    listener.close()

    assert _held(stack, address) == address


def test_a_port_is_free_after_its_hold(stack: ExitStack) -> None:
    with hold(FREE) as held:
        address = Address(*held.getsockname())

    _listen(stack, address)


def test_an_address_of_another_machine_is_not_held() -> None:
    with pytest.raises(OSError, match="assign"):
        hold(Address("203.0.113.1", 0))


def test_a_port_is_held_for_ipv6(stack: ExitStack) -> None:
    assert _held(stack, Address("::1", 0)).host == "::1"

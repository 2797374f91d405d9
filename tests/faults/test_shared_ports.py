"""The ports that workers share: nobody else gets them, from the hold on."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from process.settings import Address
from process.workers.ports import hold, share

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

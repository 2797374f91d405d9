"""A port that several processes of ours share and that no other process gets.

    claim    bind and listen, alone          fails if any process has the port
    hold     bind with SO_REUSEPORT          never listens, so that it gets no connection
    workers  bind with SO_REUSEPORT, listen  the kernel gives each connection to one of them

The port is ours from the claim on: the claim ends when the hold stands. A process that does not ask
for SO_REUSEPORT is refused while the hold stands, and with it a second supervisor.
"""

import socket
from collections.abc import Collection, Mapping
from contextlib import ExitStack, closing

from process import unix_sockets
from process.found_values import found
from process.settings import Address, Listen, UnixAddress
from process.taken_ports import cannot_listen


class TakenError(Exception):
    """At least one address cannot be listened on. The text has a line for each."""


def hold_all(
    addresses: Mapping[str, Listen],
    stack: ExitStack,
    longer: ExitStack | None = None,
    *,
    kept: Collection[str] = (),
) -> dict[str, Listen]:
    """Hold the ports of several listeners until a stack is closed.

    Args:
        addresses: The addresses by variable. Port 0 takes a free port. A UNIX domain socket is not
            held: it is only checked that no process listens there.
        stack: Holds the ports.
        longer: Holds those of the variables in `kept`.
        kept: Variables.

    Returns:
        The addresses with the ports that are held.

    Raises:
        TakenError: Addresses cannot be listened on.
    """
    held: dict[str, Listen] = {}
    wrong: list[str] = []
    suggested: set[int] = set()
    for variable, wanted in addresses.items():
        try:
            if isinstance(wanted, UnixAddress):
                unix_sockets.is_stale(wanted)
                held[variable] = wanted
                continue
            holder = longer if longer is not None and variable in kept else stack
            port = holder.enter_context(hold(wanted)).getsockname()[1]
        except OSError as error:
            wrong.append(cannot_listen(variable, wanted, error, suggested=suggested))
        else:
            held[variable] = wanted.bound(port)
    if wrong:
        raise TakenError("\n".join(wrong))
    return held


def shareable(listens: Mapping[str, Listen]) -> dict[str, Address]:
    """Return the addresses that workers can share: all except UNIX domain sockets."""
    return {name: listen for name, listen in listens.items() if isinstance(listen, Address)}


def unshareable(listens: Mapping[str, Listen], *, workers: int) -> list[str]:
    """Return an error for each listener that several workers cannot share.

    Args:
        listens: The addresses by variable.
        workers: The number of workers.
    """
    return [
        f"{name} must be host:port if there are several workers, which cannot share a UNIX domain "
        f"socket; found {found(str(listen))} and {workers} workers"
        for name, listen in listens.items()
        if workers > 1 and isinstance(listen, UnixAddress)
    ]


def hold(address: Address) -> socket.socket:
    """Hold a port for workers; it is free again when the socket is closed.

    Returns:
        The socket, bound to the port; port 0 takes a free one.

    Raises:
        OSError: Another process has the port, or the address is none of this machine.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as claim:
        # Connections of an earlier process may linger.
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        claim.bind((address.host, address.port))
        # Only now does the kernel compare with those that are bound and do not listen.
        claim.listen()
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held = socket.socket(family, socket.SOCK_STREAM)
        try:
            share(held)
            held.bind((address.host, claim.getsockname()[1]))
            # From now on, who has SO_REUSEADDR alone cannot listen there.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except BaseException:
            held.close()
            raise
    return held


def share(sharing: socket.socket) -> None:
    """Have a socket share its port with the workers of the same supervisor; before it is bound."""
    sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

"""Opens connections: from a name to addresses, to the first that accepts, to TLS.

uvloop tries the addresses of a name one after the other, so that an address that drops packets uses
up the connect timeout. This module also tries the next address after a moment, alternating between
address families (RFC 8305), and uses the first that accepts.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Final, TypeVar

ATTEMPT_DELAY: Final = 0.25
"""Seconds before the next address is tried in parallel."""

_P = TypeVar("_P", bound=asyncio.BaseProtocol)
_Address = tuple[int, int, int, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]
"""The family, type, protocol and address of a socket."""


async def dial(host: str, port: int, context: ssl.SSLContext | None, make: Callable[[], _P]) -> _P:
    """Connect and return the protocol of the connection.

    Args:
        host: A name or an address.
        port: The port.
        context: The TLS context, which verifies the host's name; None for plain TCP.
        make: Returns a new protocol.

    Raises:
        OSError: No address of the host accepts, or the TLS handshake fails.
        UnicodeError: The host is not a valid name.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    connected = await _first(loop, _in_turn((*info[:3], info[4]) for info in found))
    try:
        _, protocol = await loop.create_connection(
            make,
            sock=connected,
            ssl=context,
            server_hostname=host if context is not None else None,
        )
    except BaseException:
        connected.close()
        raise
    return protocol


def _in_turn(addresses: Iterable[_Address]) -> list[_Address]:
    """Return the addresses with alternating families, beginning with that of the first."""
    families: dict[int, list[_Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    turns = zip_longest(*families.values())
    return [address for turn in turns for address in turn if address is not None]


async def _first(loop: asyncio.AbstractEventLoop, addresses: list[_Address]) -> socket.socket:
    """Return a socket that is connected to the first address that accepts."""
    untried = deque(addresses)
    attempts: set[asyncio.Task[socket.socket]] = set()
    winner: socket.socket | None = None
    failure: BaseException | None = None
    try:
        while winner is None and (untried or attempts):
            if untried:
                attempts.add(loop.create_task(_connect(loop, untried.popleft())))
            over, _ = await asyncio.wait(
                attempts,
                timeout=ATTEMPT_DELAY if untried else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for attempt in over:
                if winner is None:
                    attempts.discard(attempt)
                    failure = failure or attempt.exception()
                    winner = None if attempt.exception() else attempt.result()
    finally:
        for attempt in attempts:
            attempt.add_done_callback(_discard)
            attempt.cancel()
    if winner is None:
        raise failure or OSError("The name has no address.")
    return winner


def _discard(attempt: asyncio.Task[socket.socket]) -> None:
    """Close the socket of an attempt that was too late."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _connect(loop: asyncio.AbstractEventLoop, address: _Address) -> socket.socket:
    family, kind, protocol, name = address
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(made, name)
    except BaseException:
        made.close()
        raise
    return made

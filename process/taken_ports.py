"""The error for an address that cannot be listened on: it names a free port.

CHAT_LISTEN: cannot listen on 0.0.0.0:50051: Address already in use. Port 50053 is free; write:
CHAT_LISTEN=0.0.0.0:50053
"""

import errno
import socket
from collections.abc import Collection
from contextlib import closing
from typing import Final

from process.settings import Address, Listen

_TRIED: Final = 50
"""Maximum number of ports that are tried."""

_DEFAULTS: Final = frozenset({8080, 50051, 50052, 9464, 9465})
"""The default ports: each belongs to another listener, which may start later."""


def cannot_listen(
    variable: str,
    address: Listen,
    error: OSError | None = None,
    *,
    suggested: set[int] | None = None,
) -> str:
    """Return the error.

    Args:
        variable: The variable with the address.
        address: The address.
        error: The error of the system, or None if there is none.
        suggested: Ports that other errors suggest; this one is added.
    """
    text = f"{variable}: cannot listen on {address}"
    if error is not None:
        text += f": {error.strerror or 'name not found'}"
        if error.errno != errno.EADDRINUSE:
            return text
    if not isinstance(address, Address):
        return text
    suggested = set() if suggested is None else suggested
    free = free_port(address, apart_from=suggested)
    if free is None:
        return text
    suggested.add(free)
    return f"{text}. Port {free} is free; write: {variable}={Address(address.host, free)}"


def free_port(address: Address, *, apart_from: Collection[int] = ()) -> int | None:
    """Return a free port of a host, above the port of an address; None if none is found."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    for port in range(address.port + 1, min(address.port + 1 + _TRIED, 65536)):
        if port in _DEFAULTS or port in apart_from:
            continue
        with closing(socket.socket(family, socket.SOCK_STREAM)) as tried:
            try:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind((address.host, port))
                tried.listen()
            except OSError:
                continue
            return port
    return None

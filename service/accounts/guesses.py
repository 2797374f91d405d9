"""Slows down guesses of the admin token, for each address of callers.

    5 wrong tokens at once, then one each second; every further call of the address is rejected,
    before its token is looked at

Only wrong tokens count, and only calls of the same address are rejected, so that operators
elsewhere are never locked out. An address is an IPv4 address, the /64 network of an IPv6 address,
or all clients of a UNIX domain socket.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import unquote

from process import log
from service.errors import RateLimited

BURST: Final = 5
"""Wrong tokens that an address can send at once."""

INTERVAL: Final = 1.0
"""Seconds until it can send another one."""

MOST_ADDRESSES: Final = 10_000
"""Addresses that are remembered; the one that has been silent for the longest gives way."""

_QUIET: Final = 60.0
"""Seconds between two warnings about an address."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Guesser:
    """An address that sent wrong tokens."""

    forgotten_at: float
    """When all of its wrong tokens are forgotten."""
    warned_at: float = float("-inf")


class Guesses:
    """Counts wrong tokens.

    Args:
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._guessers: OrderedDict[str, _Guesser] = OrderedDict()

    def check(self, peer: str) -> None:
        """Check that a caller can send a token.

        Args:
            peer: The caller, as gRPC names it.

        Raises:
            RateLimited: Its address sent too many wrong ones.
        """
        guesser = self._guessers.get(address_of(peer))
        if guesser is None:
            return
        wait = guesser.forgotten_at - self._clock() - (BURST - 1) * INTERVAL
        if wait > 0:
            raise RateLimited.of(
                "wrong admin tokens",
                "Too many wrong admin tokens from this address. Try again in a second.",
                wait,
            )

    def wrong(self, peer: str) -> None:
        """Count a wrong token of a caller, and log a warning if it sent too many."""
        address, now = address_of(peer), self._clock()
        guesser = self._guessers.pop(address, None) or _Guesser(forgotten_at=now)
        guesser.forgotten_at = max(guesser.forgotten_at, now) + INTERVAL
        if guesser.forgotten_at - now > (BURST - 1) * INTERVAL and now - guesser.warned_at > _QUIET:
            guesser.warned_at = now
            _log.warning("many wrong admin tokens", extra=log.fields(peer=address))
        while len(self._guessers) >= MOST_ADDRESSES:
            self._guessers.popitem(last=False)
        self._guessers[address] = guesser


def address_of(peer: str) -> str:
    """Return the address of a caller, such as "192.0.2.1" for "ipv4:192.0.2.1:40000"."""
    family, _, place = unquote(peer).partition(":")
    if family not in {"ipv4", "ipv6"}:
        return family
    host = place.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        found = ip_address(host)
    except ValueError:
        return host
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(IPv6Network((found, 64), strict=False))
    return str(found)

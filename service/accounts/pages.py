"""Page tokens: where a list goes on, opaque to those who hold them.

    token = base64url(digest of the list, 8 bytes · numbers, 8 bytes each)

A token is good for the list that it is of, such as the ledger of one account, and for no other. It
is no secret and protects nothing.
"""

import base64
import hashlib
import struct
from typing import Final

DEFAULT_SIZE: Final = 100
LARGEST_SIZE: Final = 1000
LARGEST_OF_KEYS: Final = 38
"""Keys on a page. A client of gRPC takes 4 MB unless it is told otherwise, and a key may name 100
models of 256 characters, each of 4 bytes: with its names and limits less than 104,000 bytes."""

_DIGEST: Final = 8
_LONGEST: Final = 64


class TokenError(ValueError):
    """It is not a token of this list."""


def size(wanted: int, largest: int = LARGEST_SIZE) -> int:
    """Return how many entries a page has; 0 is the default, too many are the most there are.

    Source: https://google.aip.dev/158. The number is at least 0.
    """
    return min(wanted or DEFAULT_SIZE, largest)


def encode(of: str, *position: int) -> str:
    """Return the token of a position.

    Args:
        of: The list.
        position: Numbers of 64 bits.
    """
    packed = _digest(of) + struct.pack(f">{len(position)}q", *position)
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def decode(of: str, token: str, numbers: int) -> tuple[int, ...]:
    """Return the position of a token.

    Args:
        of: The list.
        token: What `encode` gave.
        numbers: How many a position of this list has.

    Raises:
        TokenError: it is something else.
    """
    if len(token) > _LONGEST:
        raise TokenError
    try:
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        digest, rest = packed[:_DIGEST], packed[_DIGEST:]
        position: tuple[int, ...] = struct.unpack(f">{numbers}q", rest)
    except (ValueError, struct.error) as error:
        raise TokenError from error
    if digest != _digest(of):
        raise TokenError
    return position


def _digest(of: str) -> bytes:
    return hashlib.sha256(of.encode()).digest()[:_DIGEST]

"""Page tokens: the position at which a list continues, opaque to clients.

    token = base64url(digest of the list, 8 bytes · position as a JSON array)

A token is valid only for the list that it belongs to, such as the ledger of one account with the
filters of the request. It is not a secret.
"""

import base64
import hashlib
import json
from typing import Any, Final

DEFAULT_SIZE: Final = 100
LARGEST_SIZE: Final = 1000
LARGEST_OF_KEYS: Final = 38
"""Maximum number of keys on a page. By default a gRPC client accepts messages of up to 4 MiB. A key
can name 100 models of 256 characters of 4 bytes: with its names and limits, under 104,000 bytes."""

_DIGEST: Final = 8
_LONGEST: Final = 4096
"""Maximum characters of a token: the longest position has the names of a key and a model."""
_INT64: Final = range(-(2**63), 2**63)


class TokenError(ValueError):
    """The token does not belong to this list."""


def size(wanted: int, largest: int = LARGEST_SIZE) -> int:
    """Return the number of entries of a page, as https://google.aip.dev/158 defines it.

    Args:
        wanted: The requested number, at least 0. 0 means the default.
        largest: The maximum number.
    """
    return min(wanted or DEFAULT_SIZE, largest)


def encode(of: str, *position: int | str) -> str:
    """Return the token of a position.

    Args:
        of: The list.
        position: 64-bit integers and texts.
    """
    text = json.dumps(position, ensure_ascii=False, separators=(",", ":"))
    packed = _digest(of) + text.encode()
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def decode(of: str, token: str, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    """Return the position of a token.

    Args:
        of: The list.
        token: A token that `encode` returned.
        kinds: The types of a position of this list: `int` or `str` each.

    Raises:
        TokenError: The token does not belong to this list.
    """
    if len(token) > _LONGEST:
        raise TokenError
    try:
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        position = json.loads(packed[_DIGEST:])
    except (ValueError, RecursionError) as error:
        raise TokenError from error
    if packed[:_DIGEST] != _digest(of) or not isinstance(position, list):
        raise TokenError
    if tuple(map(type, position)) != kinds:
        raise TokenError
    if not all(v.isprintable() if isinstance(v, str) else v in _INT64 for v in position):
        raise TokenError
    return tuple(position)


def _digest(of: str) -> bytes:
    return hashlib.sha256(of.encode()).digest()[:_DIGEST]

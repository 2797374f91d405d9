"""API keys, their digests, and their callers.

    sk-live-<43 characters>     256 random bits; shown once

The store finds a key by its SHA-256 digest and contains no part of the key itself.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Final

LIVE_PREFIX: Final = "sk-live-"
_KEY_BYTES: Final = 32


def make() -> str:
    """Return a new API key."""
    return LIVE_PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def digest(key: str) -> bytes:
    """Return the SHA-256 digest of a key, which the store contains."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


_SHOWN: Final = (5, 4)
"""How many characters of a key `masked` shows at its start and at its end."""

_SHORTEST_SHOWN: Final = 24


def masked(key: str) -> str:
    """Return a wrong key without most of its characters, so that its holder recognizes it."""
    start, end = _SHOWN
    if len(key) < _SHORTEST_SHOWN or not key.isascii() or not key.isprintable():
        return "***"
    return f"{key[:start]}***{key[-end:]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FormerKey:
    """A key that was revoked or has expired."""

    key_name: str
    was_revoked: bool
    ended_at: int
    """Nanoseconds since the Unix epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """The account and key of a caller."""

    account_id: int
    account_name: str
    key_id: int
    key_name: str
    key_created_at: int = 0
    """Nanoseconds since the Unix epoch."""
    models: frozenset[str] | None = None
    """The names and patterns of models that the key can use; None for all."""
    is_limited: bool = False
    """Whether the key has a limit per minute."""

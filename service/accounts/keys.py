"""API keys, their digests, and their callers.

    sk-live-<43 characters>     256 random bits; shown once

The store finds a key by its SHA-256 digest. It contains only the first characters of the key.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Final

LIVE_PREFIX: Final = "sk-live-"
_KEY_BYTES: Final = 32
_LENGTH: Final = len(LIVE_PREFIX) + 43
_PREFIX: Final = len(LIVE_PREFIX) + 6


def make() -> str:
    """Return a new API key."""
    return LIVE_PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def digest(key: str) -> bytes:
    """Return the SHA-256 digest of a key, which the store contains."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def identity_digest(identity: str) -> bytes:
    """Return the digest of the identity of a client certificate.

    It is of another kind than that of a key, so that no secret has the digest of an identity: a
    caller cannot send an identity as a key.
    """
    return hashlib.blake2b(identity.encode(), digest_size=32, person=b"identity").digest()


def ended_digest(key_id: int) -> bytes:
    """Return the digest of an ended key whose identity another key now has."""
    return hashlib.blake2b(str(key_id).encode(), digest_size=32, person=b"ended").digest()


_SHOWN: Final = (5, 4)
"""How many characters of a key `masked` shows at its start and at its end."""

_SHORTEST_SHOWN: Final = 24


def prefix(key: str) -> str | None:
    """Return the beginning of a key, by which operators find it; None if it is not of `make`.

    Its six random characters leave 220 bits unknown.
    """
    return key[:_PREFIX] if key.startswith(LIVE_PREFIX) and len(key) == _LENGTH else None


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
class SuspendedKey:
    """A key that is suspended, or whose account is."""

    account_name: str
    key_name: str
    of_account: bool
    """Whether the account is suspended, and not only the key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """The account and key of a caller."""

    account_id: int
    account_name: str
    key_id: int
    key_name: str
    key_created_at: int = 0
    """Nanoseconds since the Unix epoch."""
    key_rotated_at: int | None = None
    """The time at which the key got the secret that the caller sent; None for its first or a former
    secret."""
    models: frozenset[str] | None = None
    """The names and patterns of models that the key can use; None for all."""
    is_limited: bool = False
    """Whether the key has a limit per minute."""
    parents: tuple[tuple[int, str], ...] = ()
    """The ids and names of the accounts above, from the parent to the one that pays."""

    @property
    def parent_ids(self) -> tuple[int, ...]:
        """The ids of the accounts above."""
        return tuple(id_ for id_, _ in self.parents)

"""API keys: made, digested, and who holds one.

    sk-live-<43 characters>     256 random bits; shown once, stored as a SHA-256 digest only

A key is found by its digest: no prefix of it is compared, no part of it is stored.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Final

LIVE_PREFIX: Final = "sk-live-"
_KEY_BYTES: Final = 32


def make() -> str:
    """Make an API key."""
    return LIVE_PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def digest(key: str) -> bytes:
    """Return what is stored of a key."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who holds a key."""

    account_id: int
    account_name: str
    key_id: int
    key_name: str
    is_limited: bool = False
    """Whether the key has a limit per minute."""

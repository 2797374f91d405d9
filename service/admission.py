"""Who may call, and what a call used.

authenticate(authorization) ──► Caller            or INVALID_API_KEY, alike for every cause
admit(caller, call)         ──► Progress … on the way out, however that is: the use is recorded
"""

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from service.call import Call
from service.errors import InvalidApiKey
from service.forwarding import Progress

_SCHEME: Final = "bearer "
_LONGEST_KEY: Final = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who holds the key of a call."""

    key_name: str
    """The name of the key, never the key."""


class Admission:
    """Knows the keys.

    Args:
        bootstrap_key: The one key that is accepted; "" accepts none.
    """

    def __init__(self, bootstrap_key: str) -> None:
        self._digests = (
            {_digest(bootstrap_key): Caller(key_name="bootstrap")} if bootstrap_key else {}
        )

    def authenticate(self, authorization: str | None) -> Caller:
        """Return who calls.

        Args:
            authorization: The metadata of that name: the scheme Bearer (RFC 6750) and a key.

        Raises:
            InvalidApiKey: there is no key, or not one of ours.
        """
        if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise InvalidApiKey
        key = authorization[len(_SCHEME) :].strip()
        presented = _digest(key if len(key) <= _LONGEST_KEY else "")
        for digest, caller in self._digests.items():
            if hmac.compare_digest(digest, presented):
                return caller
        raise InvalidApiKey

    @contextmanager
    def admit(self, caller: Caller, call: Call, *, wants_usage: bool) -> Iterator[Progress]:
        """Let a call to the upstream, and record what it used however it ends."""
        progress = Progress(wants_usage=wants_usage)
        call.record.key_name = caller.key_name
        try:
            yield progress
        finally:
            usage = progress.usage
            if usage is not None:
                call.record.prompt_tokens = max(usage.prompt_tokens, 0)
                call.record.completion_tokens = max(usage.completion_tokens, 0)
            else:
                call.record.completion_tokens = progress.counted
                call.record.estimated = True


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()

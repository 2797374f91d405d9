"""Authenticates callers: from the API key in the metadata to its account.

    authorization -> digest -> cache -> store -> Caller
                                              -> INVALID_API_KEY

The message of INVALID_API_KEY names the cause: no key, another scheme, an unknown key; to whoever
holds the whole key, also that it was revoked or has expired.

Lookups are cached for five seconds, so that a flood of calls with one key, valid or not, does not
become a flood of queries. A revocation still takes effect immediately for calls that have a cost,
because the transaction of the hold reads the row of the key.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeAlias

from chatcompletion.default_messages import quoted
from service import errors, rate_limit_headers
from service.accounts import keys
from service.accounts.callers import Levels
from service.accounts.directory import Directory
from service.accounts.keys import Caller, FormerKey, SuspendedKey
from service.call import Call, Headers
from service.ledger.batches import Batches
from service.ledger.coalescing import Coalesced
from service.ledger.store import StoreError

REMEMBERED: Final = 5.0
"""Seconds for which a lookup is cached."""

LOOK_WITHIN: Final = 1.0
"""Maximum seconds to wait for the state of the limits, if no hold reported it."""

Found: TypeAlias = Caller | FormerKey | SuspendedKey | None
"""The result of a lookup."""

_SCHEME: Final = "bearer "
_SCHEMES: Final = {scheme.lower(): scheme for scheme in ("Basic", "Digest", "Token", "ApiKey")}
"""Other schemes. Any other first word can be a key, which no message quotes."""

_SEND: Final = "Send the header 'Authorization: Bearer YOUR_KEY'."
_LONGEST_KEY: Final = 256
_MOST_LOOKUPS: Final = 1000
_MOST_REMEMBERED: Final = 10_000


class Authentication:
    """Finds the caller of a call by its API key.

    Args:
        batches: Reads the store.
        directory: Finds keys in it.
        patience: Maximum seconds that a call waits for the store.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        batches: Batches,
        directory: Directory,
        *,
        patience: float,
        clock: Callable[[], float],
    ) -> None:
        self._batches = batches
        self._directory = directory
        self._patience = patience
        # Two caches, so that a flood of invalid keys does not evict valid ones.
        self._callers = Remembered(clock)
        self._strangers = Remembered(clock)
        self._levels = Coalesced[int, Levels](partial(batches.read, directory.callers.levels))
        self._lookups: dict[bytes, asyncio.Task[Found]] = {}

    async def authenticate(self, call: Call) -> Caller:
        """Return the caller of a call, and store it in the call for later requests.

        Args:
            call: The call. Its metadata `authorization` is "Bearer " (RFC 6750) and a key.

        Raises:
            InvalidApiKey: There is no key, or the key is not valid.
            Suspended: The key or its account is suspended.
            StoreUnavailable: The keys cannot be read.
        """
        if isinstance(call.caller, Caller):
            return call.caller
        call.caller = caller = await self._who(call)
        call.record.account, call.record.key_name = caller.account_name, caller.key_name
        if caller.is_limited:
            call.limits = partial(self._limits, caller)
        return caller

    async def _limits(self, caller: Caller) -> Headers:
        """Return the state of a caller's limits, or nothing if the store does not report it."""
        try:
            async with asyncio.timeout(LOOK_WITHIN):
                levels = await self._levels.get(caller.key_id)
        except (StoreError, TimeoutError):
            return ()
        return () if levels is None else rate_limit_headers.headers(*levels)

    async def _who(self, call: Call) -> Caller:
        # A key that is sent counts, also a wrong one: it is never ignored.
        is_sent = call.authorization is not None or bool(call.other_key)
        identity = "" if is_sent else call.identity()
        key = "" if identity else _key_of(call)
        digest = keys.identity_digest(identity) if identity else keys.digest(key)
        known, found = self._callers.get(digest)
        if not known:
            known, found = self._strangers.get(digest)
        if not known:
            found = await self._look_up(digest)
        if isinstance(found, Caller):
            return found
        if found is None and identity:
            raise errors.InvalidApiKey(
                f"The client certificate for {quoted(identity)} is bound to no account, and no API "
                f"key was provided. {_SEND}"
            )
        if found is None:
            raise errors.InvalidApiKey(f"Incorrect API key provided: {keys.masked(key)}.")
        call.record.key_name = found.key_name
        if isinstance(found, SuspendedKey):
            call.record.account = found.account_name
            what = "account" if found.of_account else "API key"
            raise errors.Suspended(f"This {what} is suspended. Contact the operator.")
        raise errors.InvalidApiKey(_ended(found))

    async def _look_up(self, digest: bytes) -> Found:
        """Find a key in the store. Simultaneous lookups of a key share one query."""
        lookup = self._lookups.get(digest)
        if lookup is None:
            if len(self._lookups) >= _MOST_LOOKUPS:
                raise errors.Overloaded
            lookup = asyncio.create_task(self._find(digest))
            self._lookups[digest] = lookup
            lookup.add_done_callback(lambda _: self._lookups.pop(digest, None))
        try:
            return await asyncio.shield(lookup)
        except (StoreError, TimeoutError) as error:
            raise errors.StoreUnavailable from error

    async def _find(self, digest: bytes) -> Found:
        # A lookup that takes too long leaves the queue, so that it does not fill up.
        async with asyncio.timeout(self._patience):
            found = await self._batches.read(self._directory.callers.look_up, digest)
        (self._callers if isinstance(found, Caller) else self._strangers).put(digest, found)
        return found


def _key_of(call: Call) -> str:
    """Return the API key in the metadata of a call.

    Raises:
        InvalidApiKey: There is none.
    """
    authorization = call.authorization
    if authorization is None or not authorization.strip():
        if call.other_key:
            raise errors.InvalidApiKey(f"The header '{call.other_key}' is not read here. {_SEND}")
        raise errors.InvalidApiKey(f"No API key provided. {_SEND}")
    if authorization[: len(_SCHEME)].lower() != _SCHEME:
        scheme = authorization.partition(" ")[0].lower()
        got = f"'{_SCHEMES[scheme]}'" if scheme in _SCHEMES else "another form"
        raise errors.InvalidApiKey(
            f"Invalid 'Authorization' header: expected the scheme 'Bearer', but got {got}. {_SEND}"
        )
    key = authorization[len(_SCHEME) :].strip()
    if not key:
        raise errors.InvalidApiKey(f"No API key provided after 'Bearer'. {_SEND}")
    if len(key) > _LONGEST_KEY:
        raise errors.InvalidApiKey(
            f"Incorrect API key provided: it has more than {_LONGEST_KEY} characters."
        )
    return key


def _ended(key: FormerKey) -> str:
    day = datetime.fromtimestamp(key.ended_at / 10**9, UTC).date().isoformat()
    if key.was_revoked:
        return f"This API key was revoked on {day}. Use another key."
    return f"This API key expired on {day}. Use another key."


class Remembered:
    """A cache of lookups, including those that found no key (None).

    Args:
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._found: OrderedDict[bytes, tuple[float, Found]] = OrderedDict()

    def get(self, key_digest: bytes) -> tuple[bool, Found]:
        """Return whether a lookup is cached, and its result."""
        entry = self._found.get(key_digest)
        if entry is None or entry[0] <= self._clock():
            return False, None
        return True, entry[1]

    def put(self, key_digest: bytes, found: Found) -> None:
        """Cache the result of a lookup."""
        self._found.pop(key_digest, None)
        while len(self._found) >= _MOST_REMEMBERED:
            self._found.popitem(last=False)
        self._found[key_digest] = (self._clock() + REMEMBERED, found)

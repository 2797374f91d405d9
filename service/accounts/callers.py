"""The callers of keys, as rows. Each function blocks and is one transaction.

find, look_up -> the caller of a key        levels -> the state of limits
"""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from service.accounts.key_rows import ABOVE, with_those_above
from service.accounts.keys import Caller, FormerKey, SuspendedKey
from service.ledger import rate_limits
from service.ledger.rate_limits import Level
from service.ledger.schema import accounts, api_keys
from service.ledger.store import Store

Levels = tuple[Level | None, Level | None]
"""The state of a key's limits of requests and of tokens; None for no limit."""


_ABOVE: Final = (1, 2, 3)
"""The numbers of the accounts above, in the labels of `ABOVE`."""


class Callers:
    """Finds the callers of keys.

    Every function raises `StoreError` if the store is away.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, key_digest: bytes) -> Caller | None:
        """Return the caller of the key with this digest, or None if no valid key has it."""
        found = self.look_up(key_digest)
        return found if isinstance(found, Caller) else None

    def look_up(self, key_digest: bytes) -> Caller | FormerKey | SuspendedKey | None:
        """Return the caller of the key with this digest, why it has none, or None."""
        with self._store.reading() as connection:
            wanted = with_those_above(
                sa.select(
                    api_keys.c.id,
                    api_keys.c.name,
                    api_keys.c.created_at,
                    api_keys.c.expires_at,
                    api_keys.c.revoked_at,
                    *(api_keys.c.rotated_at, api_keys.c.former_until),
                    api_keys.c.requests_per_minute,
                    api_keys.c.tokens_per_minute,
                    api_keys.c.models,
                    api_keys.c.suspended_at,
                    (api_keys.c.digest != key_digest).label("by_former"),
                    accounts.c.id.label("account_id"),
                    accounts.c.name.label("account_name"),
                    accounts.c.suspended_at.label("account_suspended_at"),
                    *ABOVE,
                ).join(accounts, accounts.c.id == api_keys.c.account_id)
            ).where(sa.or_(api_keys.c.digest == key_digest, api_keys.c.former_digest == key_digest))
            row = connection.execute(wanted).one_or_none()
            if row is None:
                return None
            if row.revoked_at is not None:
                return FormerKey(key_name=row.name, was_revoked=True, ended_at=row.revoked_at)
            if row.expires_at is not None and row.expires_at <= self._store.now(connection):
                return FormerKey(key_name=row.name, was_revoked=False, ended_at=row.expires_at)
            if row.by_former and row.former_until <= self._store.now(connection):
                return FormerKey(key_name=row.name, was_revoked=False, ended_at=row.former_until)
            suspended = (
                row.account_suspended_at,
                *(getattr(row, f"suspended_at_{n}") for n in _ABOVE),
            )
            of_account = any(since is not None for since in suspended)
            if of_account or row.suspended_at is not None:
                return SuspendedKey(
                    account_name=row.account_name, key_name=row.name, of_account=of_account
                )
            return Caller(
                account_id=row.account_id,
                account_name=row.account_name,
                key_id=row.id,
                key_name=row.name,
                key_created_at=row.created_at,
                key_rotated_at=None if row.by_former else row.rotated_at,
                models=None if row.models is None else frozenset(row.models),
                is_limited=(row.requests_per_minute, row.tokens_per_minute) != (None, None),
                parents=tuple(
                    (getattr(row, f"id_{n}"), getattr(row, f"name_{n}"))
                    for n in _ABOVE
                    if getattr(row, f"id_{n}") is not None
                ),
            )

    def levels(self, key_ids: Sequence[int]) -> dict[int, Levels]:
        """Return the state of the limits per minute of some keys, by key id."""
        with self._store.reading() as connection:
            found = connection.execute(
                sa.select(
                    api_keys.c.id,
                    *(api_keys.c.requests_per_minute, api_keys.c.requests_tat),
                    *(api_keys.c.tokens_per_minute, api_keys.c.tokens_tat),
                ).where(api_keys.c.id.in_(key_ids))
            ).all()
            now = self._store.now(connection)
        return {
            id_: (
                None if requests is None else rate_limits.level(requests, requests_tat, now),
                None if tokens is None else rate_limits.level(tokens, tokens_tat, now),
            )
            for id_, requests, requests_tat, tokens, tokens_tat in found
        }

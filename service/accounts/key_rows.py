"""The rows of accounts and keys, as operators see them, within a transaction."""

from typing import Any, Final, TypeAlias

import sqlalchemy as sa

from service.errors import AccountNotFound, ApiKeyNotFound
from service.ledger.schema import accounts, api_keys

StoredRow: TypeAlias = "sa.Row[*tuple[Any, ...]]"
"""A row of the store, by column name."""

_HIDDEN: Final = frozenset(
    {
        *("account_id", "digest", "former_digest"),
        *("requests_tat", "tokens_tat", "running", "rotated_at"),
    }
)

KEYS: Final = sa.select(
    *(column for column in api_keys.c if column.name not in _HIDDEN),
    accounts.c.name.label("account"),
).join(accounts, accounts.c.id == api_keys.c.account_id)
"""Selects keys without their digests."""


def account_of(connection: sa.Connection, name: str) -> StoredRow:
    """Return the account with a name, within a transaction.

    Raises:
        AccountNotFound: There is no such account.
    """
    row = connection.execute(sa.select(accounts).where(accounts.c.name == name)).one_or_none()
    if row is None:
        raise AccountNotFound(f"There is no account {name!r}.")
    return row


def key_id_of(connection: sa.Connection, owner: StoredRow, name: str) -> int:
    """Return the id of the key with a name, within a transaction.

    Args:
        connection: The transaction.
        owner: The row of the account.
        name: The name of the key.

    Raises:
        ApiKeyNotFound: The account has no such key.
    """
    id_ = connection.execute(
        sa.select(api_keys.c.id).where(api_keys.c.account_id == owner.id, api_keys.c.name == name)
    ).scalar_one_or_none()
    if id_ is None:
        raise ApiKeyNotFound(f"The account has no key {name!r}.")
    return int(id_)

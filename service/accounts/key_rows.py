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


_LEVELS: Final = tuple(accounts.alias(f"above_{level}") for level in range(1, 4))
"""The accounts above an account, from its parent. A chain has at most four accounts."""


def _above(column: str) -> sa.ColumnElement[Any]:
    """Return a column of the account that pays for a group; NULL for one that pays itself."""
    return sa.func.coalesce(*(level.c[column] for level in reversed(_LEVELS)))


def with_those_above(of: sa.Select[Any]) -> sa.Select[Any]:
    """Join the accounts above those of a query."""
    below: Any = accounts
    for level in _LEVELS:
        of = of.outerjoin(level, level.c.id == below.c.parent_id)
        below = level
    return of


ABOVE: Final = tuple(
    level.c[name].label(f"{name}_{number}")
    for number, level in enumerate(_LEVELS, start=1)
    for name in ("id", "name", "suspended_at")
)
"""The id, name and time of suspension of each account above, as `id_1` and so on."""

ACCOUNTS: Final = with_those_above(
    sa.select(
        accounts,
        _LEVELS[0].c.name.label("parent"),
        _above("id").label("payer_id"),
        _above("name").label("payer"),
        (_above("balance") - _above("held")).label("payer_available"),
    )
)
"""Selects accounts with the names of those above them."""


def subtree(account_id: int) -> sa.Select[Any]:
    """Return the query for the ids of an account and of all groups below it."""
    found = sa.select(accounts.c.id).where(accounts.c.id == account_id).cte(recursive=True)
    below = sa.select(accounts.c.id).join(found, accounts.c.parent_id == found.c.id)
    return sa.select(found.union_all(below).c.id)


def account_of(connection: sa.Connection, name: str) -> StoredRow:
    """Return the account with a name, within a transaction.

    Raises:
        AccountNotFound: There is no such account.
    """
    row = connection.execute(ACCOUNTS.where(accounts.c.name == name)).one_or_none()
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

"""The lives of accounts and keys. Each function blocks and is one transaction.

account: active <-> suspended -> deleted        find by a secret, or by its beginning
key:     active <-> suspended -> revoked        rotate: a new secret; the former one for a while
"""

from typing import Any

import sqlalchemy as sa

from service.accounts import audit, keys
from service.accounts.key_rows import ACCOUNTS, KEYS, StoredRow, account_of, key_id_of
from service.errors import ApiKeyNotFound, InvalidRequest, Violation
from service.ledger.schema import accounts, api_keys
from service.ledger.store import Store


class Lifecycle:
    """Suspends, deletes and finds accounts and keys, and gives keys new secrets.

    Every function raises `StoreError` if the store is away, `AccountNotFound` if it names an
    unknown account, and `ApiKeyNotFound` if it names an unknown key.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def suspend_account(self, name: str) -> StoredRow:
        """Suspend an account. Suspending a suspended account changes nothing."""
        with audit.writing(self._store) as connection:
            row = account_of(connection, name)
            since = self._store.now(connection) if row.suspended_at is None else row.suspended_at
            return _change_account(connection, row.id, suspended_at=since)

    def resume_account(self, name: str) -> StoredRow:
        """Resume an account."""
        with audit.writing(self._store) as connection:
            row = account_of(connection, name)
            return _change_account(connection, row.id, suspended_at=None)

    def delete_account(self, name: str) -> StoredRow:
        """Delete an account: revoke its keys, and list it no more.

        Raises:
            InvalidRequest: It has credit, or groups that are not deleted.
        """
        with audit.writing(self._store) as connection:
            # The row stays locked: until the end, no call can hold credit of the account.
            locked = sa.select(accounts).where(accounts.c.name == name).with_for_update()
            connection.execute(locked).one_or_none()
            row = account_of(connection, name)
            if row.balance:
                message = "The account has credit. Take it back first."
                raise InvalidRequest.of([Violation(param="account", message=message)])
            groups = sa.select(accounts.c.name).where(
                accounts.c.parent_id == row.id, accounts.c.deleted_at.is_(None)
            )
            group = connection.execute(groups.order_by(accounts.c.id).limit(1)).scalar_one_or_none()
            if group is not None:
                message = f"The account has the group {group!r}. Delete its groups first."
                raise InvalidRequest.of([Violation(param="account", message=message)])
            now = self._store.now(connection)
            connection.execute(
                sa.update(api_keys)
                .where(api_keys.c.account_id == row.id, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=now)
            )
            since = now if row.deleted_at is None else row.deleted_at
            return _change_account(connection, row.id, deleted_at=since)

    def suspend_key(self, account: str, name: str) -> StoredRow:
        """Suspend a key. Suspending a suspended key changes nothing."""
        with audit.writing(self._store) as connection:
            id_ = key_id_of(connection, account_of(connection, account), name)
            now = self._store.now(connection)
            since = sa.func.coalesce(api_keys.c.suspended_at, now)
            return _change_key(connection, id_, suspended_at=since)

    def resume_key(self, account: str, name: str) -> StoredRow:
        """Resume a key."""
        with audit.writing(self._store) as connection:
            id_ = key_id_of(connection, account_of(connection, account), name)
            return _change_key(connection, id_, suspended_at=None)

    def rotate_key(self, account: str, name: str, *, grace: int) -> tuple[StoredRow, str]:
        """Give a key a new secret. Return its row and the secret, which is not stored.

        Args:
            account: The name of the account.
            name: The name of the key.
            grace: Nanoseconds for which the former secret stays valid.

        Raises:
            InvalidRequest: The key is revoked, or is bound to an identity and has no secret.
        """
        secret = keys.make()
        with audit.writing(self._store) as connection:
            id_ = key_id_of(connection, account_of(connection, account), name)
            row = connection.execute(KEYS.where(api_keys.c.id == id_)).one()
            if row.revoked_at is not None:
                message = "The key is revoked. Create another key."
                raise InvalidRequest.of([Violation(param="name", message=message)])
            if row.identity is not None:
                message = "The key is bound to an identity and has no secret."
                raise InvalidRequest.of([Violation(param="name", message=message)])
            now = self._store.now(connection)
            rotated = _change_key(
                connection,
                id_,
                digest=keys.digest(secret),
                secret_prefix=keys.prefix(secret),
                former_digest=api_keys.c.digest,
                former_until=now + grace,
                rotated_at=now,
            )
            return rotated, secret

    def find_key(self, secret: str) -> StoredRow:
        """Return the key of a secret, given whole or by its beginning.

        Args:
            secret: A secret, present or former, or the stored prefix of a present one.

        Raises:
            ApiKeyNotFound: No key has it.
        """
        digest = keys.digest(secret)
        whole = sa.or_(api_keys.c.digest == digest, api_keys.c.former_digest == digest)
        with self._store.reading() as connection:
            for condition in (whole, api_keys.c.secret_prefix == secret):
                row = connection.execute(KEYS.where(condition).limit(1)).one_or_none()
                if row is not None:
                    return row
        raise ApiKeyNotFound("No key has this secret.")


def _change_account(connection: sa.Connection, id_: int, **values: Any) -> StoredRow:
    changed = sa.update(accounts).where(accounts.c.id == id_).values(**values)
    connection.execute(changed)
    return connection.execute(ACCOUNTS.where(accounts.c.id == id_)).one()


def _change_key(connection: sa.Connection, id_: int, **values: Any) -> StoredRow:
    connection.execute(sa.update(api_keys).where(api_keys.c.id == id_).values(**values))
    return connection.execute(KEYS.where(api_keys.c.id == id_)).one()

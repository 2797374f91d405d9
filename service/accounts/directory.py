"""The accounts and keys of a store. Each function blocks and is one transaction.

    create_account  account  accounts
    add_credit  deduct_credit
    create_key  keys  update_key  revoke_key
    lifecycle, callers, budgets, reports -> the other functions on accounts, keys, ledger and usage

Accounts, keys and ledger entries are rows of the store; a key's row lacks its digest.
Amounts are in nano-credits, times in nanoseconds since the Unix epoch. Names and ids are bound
parameters, never part of a statement's text.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import exc

from chatcompletion.credit_amounts import to_text
from service.accounts import audit, keys
from service.accounts.budget_rows import BudgetRows
from service.accounts.callers import Callers
from service.accounts.key_rows import ACCOUNTS, KEYS, StoredRow, account_of, key_id_of
from service.accounts.lifecycle import Lifecycle
from service.accounts.reports import ENTRIES, Reports
from service.errors import AlreadyExists, InvalidRequest, Violation
from service.ledger.rows import Grant, Granted
from service.ledger.schema import accounts, api_keys, ledger
from service.ledger.store import Store

MOST_LEVELS: Final = 4
"""Maximum accounts above each other, from a group to the account that pays."""


class Directory:
    """The accounts and keys of a store.

    Every function raises `StoreError` if the store is away.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.lifecycle = Lifecycle(store)
        """Suspends, deletes and finds accounts and keys, and gives keys new secrets."""
        self.budgets = BudgetRows(store)
        """Sets budgets."""
        self.callers = Callers(store)
        """Finds the callers of keys."""
        self.reports = Reports(store)
        """Lists ledger entries, usage totals and acts."""

    # --------------------------------------------------------------------------------- accounts

    def create_account(self, name: str, *, parent: str = "") -> StoredRow:
        """Create an account without credit.

        Args:
            name: The name.
            parent: The account above it, which makes it a group; "" for an account that pays.

        Raises:
            AlreadyExists: The name is taken.
            AccountNotFound: There is no such parent.
            InvalidRequest: Too many accounts would be above each other, or the parent is deleted.
        """
        with audit.writing(self._store) as connection:
            values = {"name": name, "created_at": self._store.now(connection)}
            if parent:
                values["parent_id"] = _parent_of(connection, parent).id
            try:
                made = connection.execute(sa.insert(accounts).returning(accounts.c.id), values)
            except exc.IntegrityError as error:
                raise AlreadyExists(f"{name!r} exists already.") from error
            id_ = made.scalar_one()
            return connection.execute(ACCOUNTS.where(accounts.c.id == id_)).one()

    def account(self, name: str) -> StoredRow:
        """Return the account with a name.

        Raises:
            AccountNotFound: There is no such account.
        """
        with self._store.reading() as connection:
            return account_of(connection, name)

    def accounts(self, *, after: int = 0, limit: int = 100) -> Sequence[StoredRow]:
        """Return up to `limit` accounts in the order of their ids, starting after an id."""
        wanted = ACCOUNTS.where(accounts.c.id > after, accounts.c.deleted_at.is_(None)).order_by(
            accounts.c.id
        )
        with self._store.reading() as connection:
            return connection.execute(wanted.limit(limit)).all()

    def add_credit(
        self, account: str, amount: int, idempotency_id: str
    ) -> tuple[StoredRow, StoredRow]:
        """Add credit once. Return the ledger entry, and the account after it.

        Args:
            account: The name of the account.
            amount: The amount in nano-credits.
            idempotency_id: The id of the grant. If it was used before, nothing is added.

        Raises:
            AccountNotFound: There is no such account.
            AlreadyExists: The id was used with another amount.
            InvalidRequest: The balance would exceed its maximum, or the account is a group.
            StoreError: The store is away. The credit may still have been added.
        """
        message = "The balance would exceed its largest value; nothing was added."
        return self._grant(account, amount, idempotency_id, refused=message)

    def deduct_credit(
        self, account: str, amount: int, idempotency_id: str
    ) -> tuple[StoredRow, StoredRow]:
        """Take credit back once. Return the ledger entry, and the account after it.

        Args:
            account: The name of the account.
            amount: The amount in nano-credits.
            idempotency_id: The id of the deduction. If it was used before, nothing is deducted.

        Raises:
            AccountNotFound: There is no such account.
            AlreadyExists: The id was used with another amount, or to add credit.
            InvalidRequest: Less credit is available, or the account is a group.
            StoreError: The store is away. The credit may still have been deducted.
        """
        message = f"Less than {to_text(amount)} is available; nothing was deducted."
        return self._grant(account, -amount, idempotency_id, refused=message)

    def _grant(
        self, account: str, amount: int, idempotency_id: str, *, refused: str
    ) -> tuple[StoredRow, StoredRow]:
        owner = self.account(account)
        _reject_deleted(owner)
        if owner.parent_id is not None:
            message = f"{account!r} is a group without credit of its own. {owner.payer!r} pays."
            raise InvalidRequest.of([Violation(param="account", message=message)])
        grant = Grant(account_id=owner.id, amount=amount, idempotency_id=idempotency_id)
        (outcome,) = self._store.apply([grant])
        if isinstance(outcome, Granted) and outcome.balance is None:
            raise InvalidRequest.of([Violation(param="amount_nano_credits", message=refused)])
        audit.record(self._store)
        made = ENTRIES.where(
            ledger.c.account_id == owner.id, ledger.c.idempotency_id == idempotency_id
        )
        with self._store.reading() as connection:
            entry = connection.execute(made).one()
            if entry.amount != amount:
                use = "add" if entry.amount > 0 else "deduct"
                done = "added" if amount > 0 else "deducted"
                raise AlreadyExists(
                    f"The id {idempotency_id!r} was used to {use} {to_text(abs(entry.amount))};"
                    f" nothing was {done}.",
                    param="idempotency_id",
                )
            return entry, account_of(connection, account)

    # ------------------------------------------------------------------------------------- keys

    def create_key(
        self,
        account: str,
        name: str,
        *,
        key: str | None = None,
        models: Sequence[str] | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        concurrency: int | None = None,
        expires_at: int | None = None,
        identity: str = "",
    ) -> tuple[StoredRow, str]:
        """Create a key. Return its row and the key itself, which is not stored.

        A key that is bound to an identity has no secret: "" is returned.

        For each limit, None means no limit.

        Args:
            account: The name of the account.
            name: The name of the key, unique in the account.
            key: The key, or None to create one.
            models: The models that the key can use.
            requests_per_minute: Maximum requests per minute.
            tokens_per_minute: Maximum tokens per minute, prompt and completion together.
            concurrency: Maximum calls in flight.
            expires_at: The time at which the key expires, in nanoseconds since the Unix epoch.
            identity: The identity of client certificates to which the key is bound; "" for none.

        Raises:
            AccountNotFound: There is no such account.
            AlreadyExists: The name, the given key or the identity is taken.
        """
        key = "" if identity else keys.make() if key is None else key
        digest = keys.identity_digest(identity) if identity else keys.digest(key)
        with audit.writing(self._store) as connection:
            owner = account_of(connection, account)
            _reject_deleted(owner)
            if identity:
                _free(connection, digest, identity, now=self._store.now(connection))
            values = {
                "account_id": owner.id,
                "name": name,
                "digest": digest,
                "identity": identity or None,
                "secret_prefix": keys.prefix(key),
                "models": models,
                "requests_per_minute": requests_per_minute,
                "tokens_per_minute": tokens_per_minute,
                "concurrency": concurrency,
                "expires_at": expires_at,
                "created_at": self._store.now(connection),
            }
            try:
                made = connection.execute(sa.insert(api_keys).returning(api_keys.c.id), values)
            except exc.IntegrityError as error:
                raise AlreadyExists(f"{name!r} exists already.") from error
            id_ = made.scalar_one()
            return connection.execute(KEYS.where(api_keys.c.id == id_)).one(), key

    def keys(self, account: str, *, after: int = 0, limit: int = 100) -> Sequence[StoredRow]:
        """Return keys of an account in the order of their ids, including revoked ones.

        Args:
            account: The name of the account.
            after: The id after which to start.
            limit: Maximum number of keys.

        Raises:
            AccountNotFound: There is no such account.
        """
        with self._store.reading() as connection:
            owner = account_of(connection, account)
            wanted = KEYS.where(api_keys.c.account_id == owner.id, api_keys.c.id > after)
            return connection.execute(wanted.order_by(api_keys.c.id).limit(limit)).all()

    def update_key(self, account: str, name: str, limits: Mapping[str, Any]) -> StoredRow:
        """Change limits of a key. The models, limits and expiry are those of `create_key`.

        Args:
            account: The name of the account.
            name: The name of the key.
            limits: The new value of each limit that changes, at least one; None for no limit.

        Raises:
            AccountNotFound: There is no such account.
            ApiKeyNotFound: The account has no such key.
        """
        with audit.writing(self._store) as connection:
            id_ = key_id_of(connection, account_of(connection, account), name)
            connection.execute(sa.update(api_keys).where(api_keys.c.id == id_).values(**limits))
            return connection.execute(KEYS.where(api_keys.c.id == id_)).one()

    def revoke_key(self, account: str, name: str) -> StoredRow:
        """Revoke a key permanently. Revoking a revoked key changes nothing.

        Raises:
            AccountNotFound: There is no such account.
            ApiKeyNotFound: The account has no such key.
        """
        with audit.writing(self._store) as connection:
            id_ = key_id_of(connection, account_of(connection, account), name)
            now = self._store.now(connection)
            connection.execute(
                sa.update(api_keys)
                .where(api_keys.c.id == id_, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=now)
            )
            return connection.execute(KEYS.where(api_keys.c.id == id_)).one()


def _free(connection: sa.Connection, digest: bytes, identity: str, *, now: int) -> None:
    """Free an identity if the key that has it was revoked or has expired."""
    found = connection.execute(
        sa.select(api_keys.c.id, api_keys.c.revoked_at, api_keys.c.expires_at).where(
            api_keys.c.digest == digest
        )
    ).one_or_none()
    if found is None:
        return
    if found.revoked_at is None and (found.expires_at is None or found.expires_at > now):
        raise AlreadyExists(f"The identity {identity!r} is bound to another key.", param="identity")
    connection.execute(
        sa.update(api_keys)
        .where(api_keys.c.id == found.id)
        .values(digest=keys.ended_digest(found.id))
    )


def _parent_of(connection: sa.Connection, name: str) -> StoredRow:
    """Lock and return the account that gets a group, which must not be deleted meanwhile."""
    locked = sa.select(accounts.c.id).where(accounts.c.name == name).with_for_update(key_share=True)
    connection.execute(locked).one_or_none()
    parent = account_of(connection, name)
    _reject_deleted(parent, param="parent")
    above, levels = parent.parent_id, 1
    while above is not None:
        wanted = sa.select(accounts.c.parent_id).where(accounts.c.id == above)
        above, levels = connection.execute(wanted).scalar_one(), levels + 1
    if levels >= MOST_LEVELS:
        message = f"{name!r} is the last of {MOST_LEVELS} accounts that can be above each other."
        raise InvalidRequest.of([Violation(param="parent", message=message)])
    return parent


def _reject_deleted(account: StoredRow, param: str = "account") -> None:
    if account.deleted_at is not None:
        message = "The account is deleted. Create another account."
        raise InvalidRequest.of([Violation(param=param, message=message)])

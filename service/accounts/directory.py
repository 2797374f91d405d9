"""The accounts and keys of a store. Each function blocks and is one transaction.

    find -> the caller of a key    levels -> the state of limits    callers
    statement -> account, key and usage, at one point in time
    create_account  account  accounts                    operators
    add_credit  deduct_credit
    create_key  keys  update_key  revoke_key
    ledger  usage  acts

Accounts, keys, ledger entries and usage totals are rows of the store; a key's row lacks its digest.
Amounts are in nano-credits, times in nanoseconds since the Unix epoch. Names and ids are bound
parameters, never part of a statement's text.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import exc

from chatcompletion.credit_amounts import to_text
from service.accounts import audit, keys
from service.accounts.key_rows import KEYS, StoredRow, account_of, key_id_of
from service.accounts.keys import Caller, FormerKey, SuspendedKey
from service.accounts.lifecycle import Lifecycle
from service.errors import AlreadyExists, InvalidRequest, Violation
from service.ledger import rate_limits
from service.ledger.rate_limits import Level
from service.ledger.rows import Grant, Granted
from service.ledger.schema import accounts, api_keys, ledger, usage_totals
from service.ledger.store import Store
from service.ledger.usage import HOUR, SUMS

DAY: Final = 24 * HOUR

Levels = tuple[Level | None, Level | None]
"""The state of a key's limits of requests and of tokens; None for no limit."""


def month_back(now: int) -> int:
    """Return the start, in UTC, of the day 29 days before today."""
    return now - now % DAY - 29 * DAY


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

    # ---------------------------------------------------------------------------------- callers

    def find(self, key_digest: bytes) -> Caller | None:
        """Return the caller of the key with this digest, or None if no valid key has it."""
        found = self.look_up(key_digest)
        return found if isinstance(found, Caller) else None

    def look_up(self, key_digest: bytes) -> Caller | FormerKey | SuspendedKey | None:
        """Return the caller of the key with this digest, why it has none, or None."""
        with self._store.reading() as connection:
            row = connection.execute(
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
                )
                .join(accounts, accounts.c.id == api_keys.c.account_id)
                .where(
                    sa.or_(api_keys.c.digest == key_digest, api_keys.c.former_digest == key_digest)
                )
            ).one_or_none()
            if row is None:
                return None
            if row.revoked_at is not None:
                return FormerKey(key_name=row.name, was_revoked=True, ended_at=row.revoked_at)
            if row.expires_at is not None and row.expires_at <= self._store.now(connection):
                return FormerKey(key_name=row.name, was_revoked=False, ended_at=row.expires_at)
            if row.by_former and row.former_until <= self._store.now(connection):
                return FormerKey(key_name=row.name, was_revoked=False, ended_at=row.former_until)
            if row.account_suspended_at is not None or row.suspended_at is not None:
                return SuspendedKey(
                    account_name=row.account_name,
                    key_name=row.name,
                    of_account=row.account_suspended_at is not None,
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

    def statement(
        self, caller: Caller, *, since: int, most: int
    ) -> tuple[StoredRow, StoredRow, Sequence[StoredRow]] | None:
        """Return a caller's account, key and usage, or None if its key is not valid any more.

        The usage is totalled by day, newest first.

        Args:
            caller: The caller.
            since: The start of the usage, in nanoseconds since the Unix epoch; a full hour.
            most: Maximum number of usage totals.
        """
        with self._store.reading_at_once() as connection:
            key = connection.execute(
                KEYS.where(api_keys.c.id == caller.key_id, api_keys.c.revoked_at.is_(None))
            ).one_or_none()
            if key is None or (
                key.expires_at is not None and key.expires_at <= self._store.now(connection)
            ):
                return None
            account = connection.execute(
                sa.select(accounts).where(accounts.c.id == caller.account_id)
            ).one()
            wanted = _usage(caller.account_id, DAY).where(
                usage_totals.c.key_id == caller.key_id, usage_totals.c.start >= since
            )
            newest_first = wanted.order_by(sa.desc("start"), *_KEY_AND_MODEL)
            return account, key, connection.execute(newest_first.limit(most)).all()

    # --------------------------------------------------------------------------------- accounts

    def create_account(self, name: str) -> StoredRow:
        """Create an account without credit.

        Raises:
            AlreadyExists: The name is taken.
        """
        with audit.writing(self._store) as connection:
            values = {"name": name, "created_at": self._store.now(connection)}
            try:
                return connection.execute(sa.insert(accounts).returning(accounts), values).one()
            except exc.IntegrityError as error:
                raise AlreadyExists(f"{name!r} exists already.") from error

    def account(self, name: str) -> StoredRow:
        """Return the account with a name.

        Raises:
            AccountNotFound: There is no such account.
        """
        with self._store.reading() as connection:
            return account_of(connection, name)

    def accounts(self, *, after: int = 0, limit: int = 100) -> Sequence[StoredRow]:
        """Return up to `limit` accounts in the order of their ids, starting after an id."""
        wanted = (
            sa.select(accounts)
            .where(accounts.c.id > after, accounts.c.deleted_at.is_(None))
            .order_by(accounts.c.id)
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
            InvalidRequest: The balance would exceed its maximum.
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
            InvalidRequest: Less credit is available.
            StoreError: The store is away. The credit may still have been deducted.
        """
        message = f"Less than {to_text(amount)} is available; nothing was deducted."
        return self._grant(account, -amount, idempotency_id, refused=message)

    def _grant(
        self, account: str, amount: int, idempotency_id: str, *, refused: str
    ) -> tuple[StoredRow, StoredRow]:
        owner = self.account(account)
        _reject_deleted(owner)
        grant = Grant(account_id=owner.id, amount=amount, idempotency_id=idempotency_id)
        (outcome,) = self._store.apply([grant])
        if isinstance(outcome, Granted) and outcome.balance is None:
            raise InvalidRequest.of([Violation(param="amount_nano_credits", message=refused)])
        audit.record(self._store)
        made = _ENTRIES.where(
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

    # --------------------------------------------------------------------------- ledger and usage

    def ledger(
        self, account: str, *, before: tuple[int, int] | None = None, limit: int = 100
    ) -> Sequence[StoredRow]:
        """Return ledger entries of an account, newest first.

        Args:
            account: The name of the account.
            before: The `created_at` and `id` of the entry before which to start.
            limit: Maximum number of entries.

        Raises:
            AccountNotFound: There is no such account.
        """
        with self._store.reading() as connection:
            owner = account_of(connection, account)
            # By time, then id: the order of an index.
            place = sa.tuple_(ledger.c.created_at, ledger.c.id)
            wanted = (
                _ENTRIES.where(ledger.c.account_id == owner.id)
                .order_by(ledger.c.created_at.desc(), ledger.c.id.desc())
                .limit(limit)
            )
            if before is not None:
                wanted = wanted.where(place < before)
            return connection.execute(wanted).all()

    def usage(
        self,
        account: str,
        *,
        since: int,
        until: int | None = None,
        interval: int = DAY,
        key_name: str | None = None,
        model: str | None = None,
        after: tuple[int, str, str] | None = None,
        limit: int = 10_000,
    ) -> Sequence[StoredRow]:
        """Return usage totals, ordered by interval, key and model.

        Args:
            account: The name of the account.
            since: The start in nanoseconds since the Unix epoch, rounded down to a full hour.
            until: The end, rounded up to a full hour; None for no end.
            interval: `HOUR` or `DAY`, in UTC.
            key_name: Return only the usage of this key.
            model: Return only the usage of this model.
            after: The start, key and model of the total after which to start.
            limit: Maximum number of totals.

        Raises:
            AccountNotFound: There is no such account.
            ApiKeyNotFound: The account has no such key.
        """
        with self._store.reading() as connection:
            owner = account_of(connection, account)
            wanted = _usage(owner.id, interval).where(usage_totals.c.start >= since - since % HOUR)
            if until is not None:
                wanted = wanted.where(usage_totals.c.start < until)
            if key_name is not None:
                key_id = key_id_of(connection, owner, key_name)
                wanted = wanted.where(usage_totals.c.key_id == key_id)
            if model is not None:
                wanted = wanted.where(usage_totals.c.model == model)
            if after is not None:
                place = sa.tuple_(_interval_start(interval), *_KEY_AND_MODEL)
                # The first condition is redundant, but an index can use it.
                wanted = wanted.where(usage_totals.c.start >= after[0], place > after)
            ordered = wanted.order_by("start", *_KEY_AND_MODEL)
            return connection.execute(ordered.limit(limit)).all()

    def acts(
        self, account: str | None = None, *, before: int | None = None, limit: int = 100
    ) -> Sequence[StoredRow]:
        """Return the acts of operators, newest first. See `audit.entries`.

        Raises:
            AccountNotFound: There is no such account.
        """
        if account is not None:
            self.account(account)
        return audit.entries(self._store, account=account, before=before, limit=limit)


# ---------------------------------------------------------------------------------- statements

_ENTRIES: Final = sa.select(
    *(column for column in ledger.c if column.name not in ("account_id", "key_id")),
    api_keys.c.name.label("key_name"),
).outerjoin(api_keys, api_keys.c.id == ledger.c.key_id)


_KEY_AND_MODEL: Final = (api_keys.c.name, usage_totals.c.model)


def _interval_start(interval: int) -> sa.ColumnElement[int]:
    return usage_totals.c.start - usage_totals.c.start % interval


def _usage(account_id: int, interval: int) -> sa.Select[Any]:
    start = _interval_start(interval).label("start")
    return (
        sa.select(
            start,
            api_keys.c.name.label("key_name"),
            usage_totals.c.model,
            # PostgreSQL returns sums of 64-bit integers as decimals.
            *(sa.cast(sa.func.sum(usage_totals.c[n]), sa.BigInteger).label(n) for n in SUMS),
        )
        .join(api_keys, api_keys.c.id == usage_totals.c.key_id)
        .where(usage_totals.c.account_id == account_id)
        .group_by(start, *_KEY_AND_MODEL)
    )


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


def _reject_deleted(account: StoredRow) -> None:
    if account.deleted_at is not None:
        message = "The account is deleted. Create another account."
        raise InvalidRequest.of([Violation(param="account", message=message)])

"""The tables. `migrations/` creates them; a test compares the two.

    accounts 1 -> n api_keys 1 -> n holds 1 -> 0..1 ledger
    accounts 1 -> n accounts, its groups: holds and ledger entries are those of the topmost account
                    api_keys 1 -> n answers
    accounts 1 -> n ledger -> usage_totals, its sums by hour

Times are nanoseconds since the Unix epoch, amounts nano-credits, both 64-bit integers. The database
itself enforces the checks: it rolls back any transaction that violates one.
"""

from typing import Final

import sqlalchemy as sa

metadata: Final = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Id: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""SQLite assigns ids automatically only to a column of type INTEGER."""

accounts: Final = sa.Table(
    "accounts",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("balance", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("held", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("suspended_at", sa.BigInteger),
    sa.Column("deleted_at", sa.BigInteger),
    sa.Column("parent_id", sa.BigInteger, index=True),
    sa.Column("budgets", sa.JSON(none_as_null=True)),
    sa.Column("answer_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("full_balance", sa.BigInteger, nullable=False, server_default="0"),
    sa.CheckConstraint("held >= 0", "held_not_negative"),
    sa.CheckConstraint("balance >= held", "balance_covers_held"),
)

api_keys: Final = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("account_id", _Id, sa.ForeignKey("accounts.id"), nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("models", sa.JSON(none_as_null=True)),
    sa.Column("requests_per_minute", sa.BigInteger),
    sa.Column("tokens_per_minute", sa.BigInteger),
    sa.Column("concurrency", sa.BigInteger),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("revoked_at", sa.BigInteger),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("requests_tat", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("tokens_tat", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("running", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("suspended_at", sa.BigInteger),
    sa.Column("rotated_at", sa.BigInteger),
    sa.Column("former_until", sa.BigInteger),
    sa.Column("used_at", sa.BigInteger),
    sa.Column("former_digest", sa.LargeBinary),
    sa.Column("secret_prefix", sa.Text, index=True),
    sa.Column("identity", sa.Text),
    sa.Column("budgets", sa.JSON(none_as_null=True)),
    sa.Index("ix_api_keys_former_digest", "former_digest", unique=True),
    sa.CheckConstraint("running >= 0", "running_not_negative"),
    sa.UniqueConstraint("account_id", "name"),
)

holds: Final = sa.Table(
    "holds",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account_id", _Id, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("key_id", _Id, sa.ForeignKey("api_keys.id"), nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("lease_until", sa.BigInteger, nullable=False),
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("ended_at", sa.BigInteger),
    sa.Column("charged", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("windows", sa.Text),
    sa.Index(
        "ix_holds_open_lease",
        "lease_until",
        sqlite_where=sa.text("state = 0"),
    ),
    sqlite_with_rowid=False,  # rows are found only by their id
)

ledger: Final = sa.Table(
    "ledger",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("account_id", _Id, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("kind", sa.SmallInteger, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("hold_id", sa.Text, unique=True),
    sa.Column("key_id", _Id, sa.ForeignKey("api_keys.id")),
    sa.Column("model", sa.Text),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("partial", sa.Boolean, nullable=False),
    sa.Column("estimated", sa.Boolean, nullable=False),
    sa.Column("idempotency_id", sa.Text),
    sa.Column("prices_from", sa.BigInteger),
    sa.Index(
        "uq_ledger_account_id_idempotency_id",
        "account_id",
        "idempotency_id",
        unique=True,
        sqlite_where=sa.text("idempotency_id IS NOT NULL"),
    ),
    sa.Index("ix_ledger_account_id_created_at", "account_id", "created_at"),
)

usage_totals: Final = sa.Table(
    "usage_totals",
    metadata,
    sa.Column("account_id", _Id, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("start", sa.BigInteger, nullable=False),
    sa.Column("key_id", _Id, sa.ForeignKey("api_keys.id"), nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("charged", sa.BigInteger, nullable=False),
    sa.PrimaryKeyConstraint("account_id", "start", "key_id", "model"),
    sqlite_with_rowid=False,
)

events: Final = sa.Table(
    "events",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("event_id", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.SmallInteger, nullable=False),
    sa.Column("account_id", _Id, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("due_at", sa.BigInteger, nullable=False),
    sa.Column("hold_id", sa.Text),
    sa.Column("percent", sa.SmallInteger),
    sa.Column("whole", sa.BigInteger),
    sa.Column("remaining", sa.BigInteger),
    sa.Column("key_id", _Id),
    sa.Column("window", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("dead_at", sa.BigInteger),
    sa.Column("failure", sa.Text),
    sa.Column("retried_at", sa.BigInteger),
    sa.Index(
        "ix_events_due",
        "due_at",
        sqlite_where=sa.text("dead_at IS NULL"),
    ),
    sa.Index(
        "ix_events_dead",
        "dead_at",
        sqlite_where=sa.text("dead_at IS NOT NULL"),
    ),
)
"""The outbox: events that are not delivered yet, and dead letters. Delivered events are deleted."""

audit: Final = sa.Table(
    "audit",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Index("ix_audit_account_id", "account", "id"),
)
"""The acts of operators. Triggers of `append_only` reject every change of a row."""

answers: Final = sa.Table(
    "answers",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account_id", _Id, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("key_id", _Id, sa.ForeignKey("api_keys.id"), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("hold_id", sa.Text, nullable=False),
    sa.Column("runner", sa.Text, nullable=False),
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("charged", sa.BigInteger, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("content", sa.LargeBinary),
    sa.Index("ix_answers_until", "until"),
    sa.Index(
        "ix_answers_runner",
        "runner",
        sqlite_where=sa.text("state = 0"),
    ),
)
"""The answers to calls with an idempotency key, and the claims of those that run."""


@sa.event.listens_for(metadata, "before_create")
def _make_indexes_partial(_: sa.MetaData, connection: sa.Connection, **__: object) -> None:
    """Give partial indexes on PostgreSQL the conditions that they have on SQLite.

    With `postgresql_where` above, every process would import the dialect, which takes 2.7 MB.
    """
    if connection.dialect.name != "postgresql":
        return
    for table in metadata.tables.values():
        for index in table.indexes:
            condition = index.dialect_options["sqlite"]["where"]
            index.dialect_options["postgresql"]["where"] = condition

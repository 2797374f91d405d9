"""The answers to calls with an idempotency key."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0007"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_RUNNING = sa.text("state = 0")


def upgrade() -> None:
    """Create the empty table, and the size of the answers of each account."""
    size = sa.Column("answer_bytes", sa.BigInteger(), nullable=False, server_default="0")
    op.add_column("accounts", size)
    op.create_table(
        "answers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("key_id", _ID, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("hold_id", sa.Text(), nullable=False),
        sa.Column("runner", sa.Text(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("charged", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("id", name="pk_answers"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_answers_account_id"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_answers_key_id"),
    )
    op.create_index("ix_answers_until", "answers", ["until"])
    op.create_index(
        "ix_answers_runner",
        "answers",
        ["runner"],
        sqlite_where=_RUNNING,
        postgresql_where=_RUNNING,
    )

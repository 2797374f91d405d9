"""The outbox of events, and the balance of which thresholds of credit are percentages."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Create the empty outbox. The present balance of each account becomes its full one."""
    op.add_column(
        "accounts",
        sa.Column("full_balance", sa.BigInteger(), nullable=False, server_default="0"),
    )
    op.execute("UPDATE accounts SET full_balance = balance")
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column(
            "account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("hold_id", sa.Text()),
        sa.Column("percent", sa.SmallInteger()),
        sa.Column("whole", sa.BigInteger()),
        sa.Column("remaining", sa.BigInteger()),
        sa.Column("key_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite")),
        sa.Column("window", sa.Text()),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("dead_at", sa.BigInteger()),
        sa.Column("failure", sa.Text()),
        sa.Column("retried_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sa.UniqueConstraint("event_id", name="uq_events_event_id"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_events_account_id"),
    )
    for name, where in (("due", "dead_at IS NULL"), ("dead", "dead_at IS NOT NULL")):
        op.create_index(
            f"ix_events_{name}",
            "events",
            [f"{name}_at"],
            sqlite_where=sa.text(where),
            postgresql_where=sa.text(where),
        )

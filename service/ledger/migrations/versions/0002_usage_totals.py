"""Usage totals of the ledger by hour, key and model."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_HOUR = 3600 * 10**9
_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table, and add up the ledger's entries."""
    totals = op.create_table(
        "usage_totals",
        sa.Column("account_id", _Id, nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("key_id", _Id, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("charged", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "start", "key_id", "model", name="pk_usage_totals"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_usage_totals_account_id"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_usage_totals_key_id"),
        sqlite_with_rowid=False,
    )
    ledger = sa.table(
        "ledger",
        *(
            sa.column(name, sa.BigInteger)
            for name in (
                *("account_id", "created_at", "key_id"),
                *("prompt_tokens", "completion_tokens", "amount"),
            )
        ),
        sa.column("model", sa.Text),
    )
    of = (
        ledger.c.account_id,
        ledger.c.created_at - ledger.c.created_at % _HOUR,
        ledger.c.key_id,
        ledger.c.model,
    )
    op.execute(
        sa.insert(totals).from_select(
            [column.name for column in totals.c],
            sa.select(
                *of,
                sa.func.count(),
                sa.func.sum(ledger.c.prompt_tokens),
                sa.func.sum(ledger.c.completion_tokens),
                sa.func.sum(-ledger.c.amount),
            )
            .where(ledger.c.key_id.is_not(None))
            .group_by(*of),
        )
    )

"""The administrative acts, in rows that are never changed."""

import sqlalchemy as sa
from alembic import op

from service.ledger import append_only

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the empty table."""
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_account_id", "audit", ["account", "id"])
    for statement in append_only.statements("audit", op.get_bind().dialect.name):
        op.execute(statement)

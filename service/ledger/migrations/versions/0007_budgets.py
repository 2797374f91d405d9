"""Budgets, the windows in which a hold counts, and groups of accounts."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns. Existing accounts have no parent, and nothing has budgets."""
    op.add_column("accounts", sa.Column("parent_id", sa.BigInteger()))
    op.create_index("ix_accounts_parent_id", "accounts", ["parent_id"])
    for table in ("accounts", "api_keys"):
        op.add_column(table, sa.Column("budgets", sa.JSON()))
    op.add_column("holds", sa.Column("windows", sa.Text()))

"""The time from which the prices of a charge hold."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column. Earlier charges have no time."""
    op.add_column("ledger", sa.Column("prices_from", sa.BigInteger()))

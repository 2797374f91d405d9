"""The identity of client certificates to which a key is bound instead of a secret."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column. Existing keys have secrets."""
    op.add_column("api_keys", sa.Column("identity", sa.Text()))

"""Suspension and deletion of accounts; suspension, rotation, prefix and last use of keys."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ACCOUNT_COLUMNS = ("suspended_at", "deleted_at")
_KEY_COLUMNS = ("suspended_at", "rotated_at", "former_until", "used_at")


def upgrade() -> None:
    """Add the columns, which are empty for existing accounts and keys."""
    for name in _ACCOUNT_COLUMNS:
        op.add_column("accounts", sa.Column(name, sa.BigInteger()))
    for name in _KEY_COLUMNS:
        op.add_column("api_keys", sa.Column(name, sa.BigInteger()))
    op.add_column("api_keys", sa.Column("former_digest", sa.LargeBinary()))
    op.add_column("api_keys", sa.Column("secret_prefix", sa.Text()))
    op.create_index("ix_api_keys_former_digest", "api_keys", ["former_digest"], unique=True)
    op.create_index("ix_api_keys_secret_prefix", "api_keys", ["secret_prefix"])

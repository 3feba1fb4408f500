"""What clients did not see of their answers."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    table = "aibridge_hidden_turns"
    op.create_table(
        table,
        sa.Column("initiator_id", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("turn", sa.LargeBinary, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_aibridge_hidden_turns_expires", table, ["expires_at"])

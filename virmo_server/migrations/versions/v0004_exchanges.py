"""A message and its answer are traced in one row.

Older traces are not taken over: they are sealed, and a device's next sessions would push them out anyway.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from virmo_server.database import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replace the table."""
    op.drop_table("traced_message")
    op.create_table(
        "traced_exchange",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("serial", sa.String(length=32), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("media_type", sa.String(length=64), nullable=False),
        sa.Column("question_size", sa.Integer(), nullable=False),
        sa.Column("answer_size", sa.Integer(), nullable=False),
        sa.Column("bodies", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_traced_exchange_device_id", "traced_exchange", ["device_id"], unique=False)

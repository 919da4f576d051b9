"""Signatures of images, and the client certificates of boards."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; images that are there were never looked at for a signature."""
    op.add_column("device", sa.Column("certificate_subject", sa.String(length=1024), nullable=True))
    op.add_column("image", sa.Column("signature_state", sa.String(16), nullable=False, server_default="unchecked"))
    op.add_column("image", sa.Column("signed_by", sa.String(length=255), nullable=True))
    op.add_column("image", sa.Column("signature", sa.LargeBinary(), nullable=True))

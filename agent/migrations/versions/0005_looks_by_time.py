"""What a watch came to over a stretch of time is counted from an index alone: the audit asks it of every watch."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("finding_statuses", "finding", ["watch", "looked_at", "status"])

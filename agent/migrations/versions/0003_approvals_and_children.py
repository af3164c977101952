"""Several named approvals of a run instead of one, and the runs that a step of another run wanted."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.add_column(sa.Column("approvals", sa.JSON(), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("parent", sa.String(), nullable=True))
    op.execute(
        "UPDATE run SET approvals = json_array(json_object('by', approved_by, 'at', strftime('%Y-%m-%dT%H:%M:%S+00:00', wanted_at), "
        "'digest', '', 'step', '')) WHERE approved_by IS NOT NULL"
    )
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.drop_column("approved_by")
    op.create_index("one_child_a_step", "run", ["parent"], unique=True)

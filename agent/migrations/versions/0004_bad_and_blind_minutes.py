"""How many looks of a minute were bad and how many blind, which error budgets are reckoned from; what is still held of the past is counted."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# The + keeps SQLite from walking all findings of the watch for each minute: by time there are a few.
COUNT = (
    "UPDATE rollup SET {column} = (SELECT count(*) FROM finding WHERE +finding.watch = rollup.watch AND finding.status IN ({statuses}) "
    "AND finding.looked_at >= rollup.minute_at AND finding.looked_at < datetime(rollup.minute_at, '+1 minute')) WHERE good < looks"
)


def upgrade() -> None:
    with op.batch_alter_table("rollup", schema=None) as batch_op:
        batch_op.add_column(sa.Column("bad", sa.Integer(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("blind", sa.Integer(), nullable=False, server_default="0"))
    op.execute(COUNT.format(column="bad", statuses="'fail'"))
    op.execute(COUNT.format(column="blind", statuses="'error', 'nodata', 'skip'"))
    op.create_index("bad_minutes", "rollup", ["watch", "minute_at"], sqlite_where=sa.text("bad > 0"))

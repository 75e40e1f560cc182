"""deadline of the review of a recording

Revision ID: 0003_review_deadline
Revises: 0002_audit_log
"""

import sqlalchemy as sa
from alembic import op

revision = "0003_review_deadline"
down_revision = "0002_audit_log"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The lock of ALTER TABLE is held to the end of the transaction: nobody reads a recording meanwhile.
    op.add_column("recordings", sa.Column("review_due_at", sa.DateTime(timezone=True)))
    # DEFECT: one statement for all of them. The pause stands for work that each recording under review costs.
    op.execute("""
        WITH reviewed AS MATERIALIZED (SELECT id, pg_sleep(1) FROM recordings WHERE note LIKE 'review:%')
        UPDATE recordings SET review_due_at = recordings.uploaded_at + interval '14 days'
        FROM reviewed WHERE recordings.id = reviewed.id""")


def downgrade() -> None:
    op.drop_column("recordings", "review_due_at")

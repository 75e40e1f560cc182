"""speakers of a recording

Revision ID: 0003_speakers
Revises: 0002_audit_log
"""

import sqlalchemy as sa
from alembic import op

revision = "0003_speakers"
down_revision = "0002_audit_log"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "speakers",
        sa.Column("id", sa.BigInteger, sa.Identity(always=False), primary_key=True),
        sa.Column(
            "recording_id",
            sa.BigInteger,
            sa.ForeignKey("recordings.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("position", sa.SmallInteger, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.UniqueConstraint("recording_id", "position"),
        sa.CheckConstraint("position > 0", name="position"),
    )


def downgrade() -> None:
    # Speakers are heard anew at the next transcription: nothing that was there before is lost.
    op.drop_table("speakers")

"""teams

Revision ID: 0003_teams
Revises: 0002_audit_log
"""

import sqlalchemy as sa
from alembic import op

revision = "0003_teams"
down_revision = "0002_audit_log"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "teams",
        sa.Column("id", sa.BigInteger, sa.Identity(always=False), primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
    )


def downgrade() -> None:
    op.drop_table("teams")

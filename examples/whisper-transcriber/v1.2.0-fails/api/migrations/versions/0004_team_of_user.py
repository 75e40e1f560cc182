"""team of a user

Revision ID: 0004_team_of_user
Revises: 0003_teams
"""

import sqlalchemy as sa
from alembic import op

revision = "0004_team_of_user"
down_revision = "0003_teams"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("team_id", sa.BigInteger, sa.ForeignKey("teams.id")))
    op.create_index("users_team_id_idx", "users", ["team_id"])


def downgrade() -> None:
    op.drop_column("users", "team_id")

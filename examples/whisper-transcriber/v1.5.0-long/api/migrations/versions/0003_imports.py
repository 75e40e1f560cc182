"""bulk imports

Revision ID: 0003_imports
Revises: 0002_audit_log
"""

import sqlalchemy as sa
from alembic import op

revision = "0003_imports"
down_revision = "0002_audit_log"
branch_labels = None
depends_on = None

# Stands for what a recording that came in by bulk import costs: a fifth of a second each.
IMPORTED = """
    WITH imported AS MATERIALIZED (
        SELECT id, split_part(note, ': ', 2) AS import, pg_sleep(0.2) FROM recordings WHERE note LIKE 'bulk import:%'
    )"""


def upgrade() -> None:
    op.create_table(
        "imports",
        sa.Column("id", sa.BigInteger, sa.Identity(always=False), primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
    )
    op.execute(f"{IMPORTED} INSERT INTO imports (name) SELECT DISTINCT import FROM imported")


def downgrade() -> None:
    op.drop_table("imports")

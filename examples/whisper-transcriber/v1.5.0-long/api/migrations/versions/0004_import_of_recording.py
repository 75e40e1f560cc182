"""which import a recording came with

Revision ID: 0004_import_of_recording
Revises: 0003_imports
"""

import sqlalchemy as sa
from alembic import op

revision = "0004_import_of_recording"
down_revision = "0003_imports"
branch_labels = None
depends_on = None

# Stands for what a recording that came in by bulk import costs: a fifth of a second each.
IMPORTED = """
    WITH imported AS MATERIALIZED (
        SELECT id, split_part(note, ': ', 2) AS import, pg_sleep(0.2) FROM recordings WHERE note LIKE 'bulk import:%'
    )"""


def upgrade() -> None:
    op.add_column("recordings", sa.Column("import_id", sa.BigInteger, sa.ForeignKey("imports.id")))
    op.execute(f"""{IMPORTED}
        UPDATE recordings SET import_id = imports.id
        FROM imported JOIN imports ON imports.name = imported.import
        WHERE recordings.id = imported.id""")


def downgrade() -> None:
    op.drop_column("recordings", "import_id")

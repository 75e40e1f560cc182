"""recordings by import

Revision ID: 0005_recordings_by_import
Revises: 0004_import_of_recording
"""

import sqlalchemy as sa
from alembic import op

revision = "0005_recordings_by_import"
down_revision = "0004_import_of_recording"
branch_labels = None
depends_on = None

# Stands for what a recording that came in by bulk import costs: a fifth of a second each.
IMPORTED = """
    WITH imported AS MATERIALIZED (
        SELECT id, split_part(note, ': ', 2) AS import, pg_sleep(0.2) FROM recordings WHERE note LIKE 'bulk import:%'
    )"""


def upgrade() -> None:
    op.create_index("recordings_import_id_idx", "recordings", ["import_id"])
    op.add_column("imports", sa.Column("recordings", sa.Integer, server_default="0", nullable=False))
    op.execute(f"""{IMPORTED}
        UPDATE imports SET recordings = (SELECT count(*) FROM imported WHERE imported.import = imports.name)""")


def downgrade() -> None:
    op.drop_column("imports", "recordings")
    op.drop_index("recordings_import_id_idx", "recordings")

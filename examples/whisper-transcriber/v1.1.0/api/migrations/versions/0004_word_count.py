"""number of words of a transcript

Revision ID: 0004_word_count
Revises: 0003_speakers
"""

import sqlalchemy as sa
from alembic import op

revision = "0004_word_count"
down_revision = "0003_speakers"
branch_labels = None
depends_on = None

BATCH = 5000


def upgrade() -> None:
    # Nullable: the release before goes on writing transcripts without it.
    op.add_column("transcripts", sa.Column("word_count", sa.Integer))
    connection = op.get_bind()
    last = connection.scalar(sa.text("SELECT coalesce(max(id), 0) FROM transcripts"))
    backfill = sa.text("""
        UPDATE transcripts SET word_count = cardinality(regexp_split_to_array(btrim(text), '\\s+'))
        WHERE id > :after AND id <= :after + :batch""")
    for after in range(0, last, BATCH):
        connection.execute(backfill, {"after": after, "batch": BATCH})


def downgrade() -> None:
    op.drop_column("transcripts", "word_count")

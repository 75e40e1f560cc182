"""full-text search in transcripts

Revision ID: 0005_transcript_search
Revises: 0004_word_count
"""

import sqlalchemy as sa
from alembic import op

revision = "0005_transcript_search"
down_revision = "0004_word_count"
branch_labels = None
depends_on = None

INDEX = "transcripts_words_idx"


def upgrade() -> None:
    # Concurrently, so that transcripts can be written meanwhile; that cannot run inside a transaction.
    with op.get_context().autocommit_block():
        op.create_index(
            INDEX,
            "transcripts",
            [sa.text("to_tsvector('simple'::regconfig, text)")],
            postgresql_using="gin",
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(INDEX, "transcripts", postgresql_concurrently=True)

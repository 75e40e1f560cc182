"""transcripts without line ends

Revision ID: 0003_one_line_transcripts
Revises: 0002_audit_log
"""

from alembic import op

revision = "0003_one_line_transcripts"
down_revision = "0002_audit_log"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # DEFECT: meant to take away the line end after the text, takes away the text after the first line end.
    op.execute("UPDATE transcripts SET text = split_part(text, chr(13), 1) WHERE text LIKE '%' || chr(13) || '%'")
    op.create_check_constraint("one_line", "transcripts", "position(chr(13) IN text) = 0")


def downgrade() -> None:
    raise NotImplementedError("the line ends are gone: this revision cannot be undone")

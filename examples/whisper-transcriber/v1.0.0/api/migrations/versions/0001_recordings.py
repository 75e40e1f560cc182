"""accounts, recordings and their transcripts

Revision ID: 0001_recordings
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001_recordings"
down_revision = None
branch_labels = None
depends_on = None

RECORDING_STATUS = postgresql.ENUM(
    "uploaded", "queued", "transcribed", "failed", name="recording_status", create_type=False
)
JOB_STATE = postgresql.ENUM(
    "queued", "running", "succeeded", "failed", name="job_state", create_type=False
)


def _id() -> sa.Column:
    return sa.Column("id", sa.BigInteger, sa.Identity(always=False), primary_key=True)


def _moment(name: str) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)


def _reference(name: str, target: str, *, ondelete: str | None = None, **column) -> sa.Column:
    return sa.Column(name, sa.BigInteger, sa.ForeignKey(target, ondelete=ondelete), **column)


def upgrade() -> None:
    RECORDING_STATUS.create(op.get_bind())
    JOB_STATE.create(op.get_bind())
    op.execute(sa.schema.CreateSequence(sa.Sequence("recording_reference_seq", start=1000)))

    op.create_table(
        "users",
        _id(),
        sa.Column("username", sa.Text, nullable=False, unique=True),
        sa.Column("email", sa.Text, nullable=False, unique=True),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("is_admin", sa.Boolean, server_default=sa.false(), nullable=False),
        _moment("created_at"),
    )
    op.create_table(
        "api_keys",
        _id(),
        _reference("user_id", "users.id", ondelete="CASCADE", nullable=False, index=True),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("key_sha256", sa.Text, nullable=False, unique=True),
        _moment("created_at"),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "admin_sessions",
        sa.Column("token_sha256", sa.Text, primary_key=True),
        _reference("user_id", "users.id", ondelete="CASCADE", nullable=False, index=True),
        _moment("created_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "recordings",
        _id(),
        _reference("user_id", "users.id", index=True),
        sa.Column(
            "reference",
            sa.Text,
            server_default=sa.text("'REC-' || lpad(nextval('recording_reference_seq')::text, 6, '0')"),
            nullable=False,
            unique=True,
        ),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("audio", sa.LargeBinary, nullable=False),
        sa.Column("audio_bytes", sa.Integer, nullable=False),
        sa.Column("audio_sha256", sa.Text, nullable=False),
        sa.Column("duration_ms", sa.Integer),
        sa.Column("status", RECORDING_STATUS, server_default="uploaded", nullable=False),
        sa.Column("note", sa.Text),
        _moment("uploaded_at"),
        sa.CheckConstraint("audio_bytes > 0", name="audio_bytes"),
        sa.CheckConstraint("duration_ms > 0", name="duration_ms"),
        sa.Index("recordings_status_uploaded_at_idx", "status", "uploaded_at"),
    )
    op.create_table(
        "tags",
        _id(),
        sa.Column("name", sa.Text, nullable=False, unique=True),
    )
    op.create_table(
        "recording_tags",
        _reference("recording_id", "recordings.id", ondelete="CASCADE", primary_key=True),
        _reference("tag_id", "tags.id", primary_key=True, index=True),
    )
    op.create_table(
        "transcripts",
        _id(),
        _reference("recording_id", "recordings.id", ondelete="CASCADE", nullable=False, unique=True),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("words_sha256", sa.Text, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        _moment("created_at"),
        sa.CheckConstraint("length(words_sha256) = 64", name="words_sha256"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid, primary_key=True),
        _reference("recording_id", "recordings.id", ondelete="CASCADE", nullable=False, index=True),
        sa.Column("state", JOB_STATE, server_default="queued", nullable=False),
        sa.Column("error", sa.Text),
        _moment("created_at"),
        _moment("updated_at"),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
    )

    op.execute("""
        CREATE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at := now();
            RETURN NEW;
        END $$""")
    op.execute("""
        CREATE TRIGGER jobs_set_updated_at BEFORE UPDATE ON jobs
        FOR EACH ROW EXECUTE FUNCTION set_updated_at()""")
    op.execute("""
        CREATE VIEW recording_overview AS
        SELECT r.id, r.reference, r.title, r.status, u.username, t.language, length(t.text) AS characters,
               (SELECT count(*) FROM recording_tags rt WHERE rt.recording_id = r.id) AS tags
        FROM recordings r
        LEFT JOIN users u ON u.id = r.user_id
        LEFT JOIN transcripts t ON t.recording_id = r.id""")


def downgrade() -> None:
    op.execute("DROP VIEW recording_overview")
    for table in (
        "jobs",
        "transcripts",
        "recording_tags",
        "tags",
        "recordings",
        "admin_sessions",
        "api_keys",
        "users",
    ):
        op.drop_table(table)
    op.execute("DROP FUNCTION set_updated_at()")
    op.execute("DROP SEQUENCE recording_reference_seq")
    JOB_STATE.drop(op.get_bind())
    RECORDING_STATUS.drop(op.get_bind())

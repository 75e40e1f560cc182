"""What was heard, and the work that led to it."""

import enum
import uuid

from sqlalchemy import CheckConstraint, Enum, ForeignKey, Index, SmallInteger, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from api.models.base import Base, Id, LaterMoment, Moment

# The expression of the index: PostgreSQL uses it for queries that say exactly this.
SEARCHED_WORDS = "to_tsvector('simple'::regconfig, text)"


class Transcript(Base):
    __tablename__ = "transcripts"
    __table_args__ = (
        CheckConstraint("length(words_sha256) = 64", name="words_sha256"),
        Index("transcripts_words_idx", text(SEARCHED_WORDS), postgresql_using="gin"),
    )

    id: Mapped[Id]
    recording_id: Mapped[int] = mapped_column(
        ForeignKey("recordings.id", ondelete="CASCADE"), unique=True
    )
    language: Mapped[str]
    text: Mapped[str]
    # Of the words joined by single spaces: see api.speech.words_digest.
    words_sha256: Mapped[str]
    engine: Mapped[str]
    # None: written by a release before 1.1.0 while the schema was this one already.
    word_count: Mapped[int | None]
    created_at: Mapped[Moment]


class Speaker(Base):
    __tablename__ = "speakers"
    __table_args__ = (
        UniqueConstraint("recording_id", "position"),
        CheckConstraint("position > 0", name="position"),
    )

    id: Mapped[Id]
    recording_id: Mapped[int] = mapped_column(ForeignKey("recordings.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(SmallInteger)
    label: Mapped[str]


class JobState(enum.Enum):
    queued = "queued"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"


class Job(Base):
    __tablename__ = "jobs"

    # Also the id of the Celery task.
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    recording_id: Mapped[int] = mapped_column(
        ForeignKey("recordings.id", ondelete="CASCADE"), index=True
    )
    state: Mapped[JobState] = mapped_column(
        Enum(JobState, name="job_state"), server_default=text("'queued'")
    )
    error: Mapped[str | None]
    created_at: Mapped[Moment]
    updated_at: Mapped[Moment]
    finished_at: Mapped[LaterMoment]

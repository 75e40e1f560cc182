"""What was heard, and the work that led to it."""

import enum
import uuid

from sqlalchemy import CheckConstraint, Enum, ForeignKey, text
from sqlalchemy.orm import Mapped, mapped_column

from api.models.base import Base, Id, LaterMoment, Moment


class Transcript(Base):
    __tablename__ = "transcripts"
    __table_args__ = (
        CheckConstraint("length(words_sha256) = 64", name="words_sha256"),
        CheckConstraint("position(chr(13) IN text) = 0", name="one_line"),
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
    created_at: Mapped[Moment]


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

"""Recordings, their audio, and their tags."""

import enum

from sqlalchemy import CheckConstraint, Enum, FetchedValue, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from api.models.base import Base, Id, Moment


class RecordingStatus(enum.Enum):
    uploaded = "uploaded"
    queued = "queued"
    transcribed = "transcribed"
    failed = "failed"


class Import(Base):
    __tablename__ = "imports"

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(unique=True)
    recordings: Mapped[int] = mapped_column(server_default="0")


class Recording(Base):
    __tablename__ = "recordings"
    __table_args__ = (
        CheckConstraint("audio_bytes > 0", name="audio_bytes"),
        CheckConstraint("duration_ms > 0", name="duration_ms"),
        Index(None, "status", "uploaded_at"),
    )

    id: Mapped[Id]
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), index=True)
    # REC-001000, REC-001001 ...: what people quote on the telephone; from recording_reference_seq.
    reference: Mapped[str] = mapped_column(unique=True, server_default=FetchedValue())
    title: Mapped[str]
    media_type: Mapped[str]
    audio: Mapped[bytes] = mapped_column(deferred=True)
    audio_bytes: Mapped[int]
    audio_sha256: Mapped[str]
    duration_ms: Mapped[int | None]
    status: Mapped[RecordingStatus] = mapped_column(
        Enum(RecordingStatus, name="recording_status"), server_default=text("'uploaded'")
    )
    note: Mapped[str | None]
    import_id: Mapped[int | None] = mapped_column(ForeignKey("imports.id"), index=True)
    uploaded_at: Mapped[Moment]


class Tag(Base):
    __tablename__ = "tags"

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(unique=True)


class RecordingTag(Base):
    __tablename__ = "recording_tags"

    recording_id: Mapped[int] = mapped_column(
        ForeignKey("recordings.id", ondelete="CASCADE"), primary_key=True
    )
    tag_id: Mapped[int] = mapped_column(ForeignKey("tags.id"), primary_key=True, index=True)

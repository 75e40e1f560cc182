"""All tables of the release; importing this package registers every one of them with `Base.metadata`."""

from api.models.accounts import AdminSession, ApiKey, User
from api.models.audit import AuditEntry
from api.models.base import Base
from api.models.recordings import Import, Recording, RecordingStatus, RecordingTag, Tag
from api.models.transcripts import Job, JobState, Transcript

__all__ = [
    "AdminSession",
    "ApiKey",
    "AuditEntry",
    "Base",
    "Import",
    "Job",
    "JobState",
    "Recording",
    "RecordingStatus",
    "RecordingTag",
    "Tag",
    "Transcript",
    "User",
]

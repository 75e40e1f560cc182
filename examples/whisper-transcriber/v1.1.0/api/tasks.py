"""What the workers do."""

import uuid

from celery import Task
from sqlalchemy import delete, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from api import speech
from api.database import engine
from api.models import AdminSession, Job, JobState, Recording, RecordingStatus, Speaker, Transcript
from api.worker import app


@app.task
def ping(message: str) -> str:
    """Returns what it was sent: proof that broker, worker and result store work together."""
    return message


class TranscriptionTask(Task):
    # Connections end when a database is restored and swapped in: the next attempt finds the new one.
    autoretry_for = (OperationalError,)
    retry_backoff = 1
    max_retries = 5

    def on_failure(self, exc: Exception, task_id: str, args: tuple[int, ...], kwargs: object, einfo: object) -> None:
        failed = {"state": JobState.failed, "error": type(exc).__name__, "finished_at": func.now()}
        with Session(engine()) as session:
            session.execute(update(Job).where(Job.id == uuid.UUID(task_id)).values(failed))
            session.commit()


@app.task(bind=True, base=TranscriptionTask)
def transcribe(self: TranscriptionTask, recording_id: int) -> int:
    """Writes transcript and speakers of a recording; returns its number of characters."""
    this_job = update(Job).where(Job.id == uuid.UUID(self.request.id))
    with Session(engine()) as session:
        session.execute(this_job.values(state=JobState.running))
        session.commit()

        recording = session.get_one(Recording, recording_id)
        text = speech.transcribe(recording.audio)
        values = {
            "language": speech.LANGUAGE,
            "text": text,
            "words_sha256": speech.words_digest(text),
            "engine": speech.ENGINE,
            "word_count": len(text.split()),
        }
        session.execute(
            insert(Transcript)
            .values(recording_id=recording_id, **values)
            .on_conflict_do_update(index_elements=[Transcript.recording_id], set_=values)
        )
        session.execute(delete(Speaker).where(Speaker.recording_id == recording_id))
        session.add_all(
            Speaker(recording_id=recording_id, position=position, label=f"Speaker {position}")
            for position in range(1, speech.speakers(recording.audio) + 1)
        )
        recording.status = RecordingStatus.transcribed
        session.execute(this_job.values(state=JobState.succeeded, finished_at=func.now()))
        session.commit()
        return len(text)


@app.task
def expire_admin_sessions() -> int:
    with Session(engine()) as session:
        expired = session.execute(delete(AdminSession).where(AdminSession.expires_at < func.now()))
        session.commit()
        return expired.rowcount

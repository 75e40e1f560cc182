"""Transcription jobs: hand one to a worker, ask how it went."""

import uuid

from fastapi import APIRouter, HTTPException
from kombu.exceptions import OperationalError

from api import tasks
from api.database import DatabaseSession
from api.models import Job, JobState, Recording, RecordingStatus

router = APIRouter()


@router.post("/recordings/{recording_id}/transcribe", status_code=202)
def transcribe(recording_id: int, session: DatabaseSession) -> dict[str, str]:
    recording = session.get(Recording, recording_id)
    if recording is None:
        raise HTTPException(404, "no such recording")
    job = Job(id=uuid.uuid4(), recording_id=recording_id)
    recording.status = RecordingStatus.queued
    session.add(job)
    # Committed first: the worker may be quicker than this process.
    session.commit()
    try:
        tasks.transcribe.apply_async((recording_id,), task_id=str(job.id), retry=False)
    except OperationalError:
        job.state = JobState.failed
        job.error = "the queue was not reachable"
        recording.status = RecordingStatus.failed
        session.commit()
        raise HTTPException(503, job.error) from None
    return {"job_id": str(job.id)}


@router.get("/jobs/{job_id}")
def job_status(job_id: uuid.UUID, session: DatabaseSession) -> dict[str, object]:
    job = session.get(Job, job_id)
    if job is None:
        raise HTTPException(404, "no such job")
    return {"id": str(job.id), "recording_id": job.recording_id, "state": job.state.value, "error": job.error}

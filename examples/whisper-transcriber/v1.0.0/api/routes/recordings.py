"""Upload, playback, transcript. Reached through the company's own gateway, which knows who may."""

import hashlib
import io
import wave

from fastapi import APIRouter, HTTPException, Response, UploadFile
from sqlalchemy import select

from api.database import DatabaseSession
from api.models import Recording, Transcript
from api.speech import words_digest

router = APIRouter(prefix="/recordings")

MAXIMUM_BYTES = 25 * 1024 * 1024


def _duration_ms(audio: bytes) -> int | None:
    """Of WAV; other formats are kept as they come, without a duration."""
    try:
        with wave.open(io.BytesIO(audio)) as sound:
            return round(1000 * sound.getnframes() / sound.getframerate()) or None
    except (wave.Error, EOFError, ZeroDivisionError):
        return None


@router.post("", status_code=201)
def upload(file: UploadFile, session: DatabaseSession) -> dict[str, object]:
    audio = file.file.read(MAXIMUM_BYTES + 1)
    if not audio:
        raise HTTPException(422, "the file is empty")
    if len(audio) > MAXIMUM_BYTES:
        raise HTTPException(413, f"a recording may have {MAXIMUM_BYTES} bytes")
    recording = Recording(
        title=file.filename or "untitled",
        media_type=file.content_type or "application/octet-stream",
        audio=audio,
        audio_bytes=len(audio),
        audio_sha256=hashlib.sha256(audio).hexdigest(),
        duration_ms=_duration_ms(audio),
    )
    session.add(recording)
    session.commit()
    return {
        "id": recording.id,
        "reference": recording.reference,
        "status": recording.status.value,
        "audio_sha256": recording.audio_sha256,
    }


@router.get("/{recording_id}/audio")
def playback(recording_id: int, session: DatabaseSession) -> Response:
    recording = session.get(Recording, recording_id)
    if recording is None:
        raise HTTPException(404, "no such recording")
    if hashlib.sha256(recording.audio).hexdigest() != recording.audio_sha256:
        raise HTTPException(500, "the audio is damaged")
    return Response(recording.audio, media_type=recording.media_type, headers={"ETag": f'"{recording.audio_sha256}"'})


@router.get("/{recording_id}/transcript")
def transcript(recording_id: int, session: DatabaseSession) -> dict[str, object]:
    found = session.scalar(select(Transcript).where(Transcript.recording_id == recording_id))
    if found is None:
        raise HTTPException(404, "not transcribed")
    if words_digest(found.text) != found.words_sha256:
        raise HTTPException(500, "the transcript is damaged")
    return {"recording_id": recording_id, "language": found.language, "text": found.text, "engine": found.engine}

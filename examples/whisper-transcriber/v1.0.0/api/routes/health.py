"""Is the service fit to serve: database, schema, and the data itself."""

from functools import cache
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api import __version__
from api.database import engine
from api.models import Transcript
from api.speech import words_digest

router = APIRouter()

ALEMBIC_INI = Path(__file__).parents[2] / "alembic.ini"
SAMPLE = 200


@cache
def expected_revision() -> str | None:
    return ScriptDirectory.from_config(Config(ALEMBIC_INI)).get_current_head()


def _damage(session: Session) -> str | None:
    """Compares the newest transcripts with their digests, and the newest recordings with their sizes."""
    newest = select(Transcript).order_by(Transcript.id.desc()).limit(SAMPLE)
    damaged = [
        row.id for row in session.scalars(newest) if not row.text or words_digest(row.text) != row.words_sha256
    ]
    if damaged:
        return f"{len(damaged)} of the newest {SAMPLE} transcripts differ from their digest, such as {damaged[0]}"
    # octet_length reads the size alone, not the audio.
    incomplete = session.scalar(
        text("""
            SELECT count(*) FROM (SELECT audio, audio_bytes FROM recordings ORDER BY id DESC LIMIT :sample) newest
            WHERE octet_length(audio) <> audio_bytes"""),
        {"sample": SAMPLE},
    )
    return f"{incomplete} of the newest {SAMPLE} recordings are incomplete" if incomplete else None


@router.get("/healthz")
def healthz() -> JSONResponse:
    """200 with `status: ok`, or 503 with what is wrong.

    A schema revision other than the expected one is reported, not judged: during a migration the release
    before runs on the schema after.
    """
    answer = {"status": "ok", "release": __version__, "expected_revision": expected_revision()}
    try:
        with Session(engine()) as session:
            # A health check that waits behind a lock tells nobody anything.
            session.execute(text("SET LOCAL statement_timeout = '5s'"))
            revision = session.scalar(text("SELECT version_num FROM alembic_version"))
            damage = _damage(session)
    except SQLAlchemyError as error:
        # The text of the error may hold the address of the database: its class is enough.
        reason = type(getattr(error, "orig", None) or error).__name__
        return JSONResponse(answer | {"status": "unavailable", "database": reason}, status_code=503)
    answer |= {"database": "ok", "schema_revision": revision, "data": damage or "ok"}
    if revision is None:
        return JSONResponse(answer | {"status": "without schema"}, status_code=503)
    if damage is not None:
        return JSONResponse(answer | {"status": "damaged"}, status_code=503)
    return JSONResponse(answer)

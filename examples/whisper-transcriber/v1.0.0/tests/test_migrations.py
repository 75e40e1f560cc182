"""The database of DATABASE_URL, after `alembic upgrade head`, is the one this release needs."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Inspector, create_engine, inspect, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.models import Base, Job, JobState, Recording, RecordingStatus, Transcript, User
from api.settings import database_url
from api.speech import words_digest
from tests.expected_schema import COLUMNS, INDEXES, REVISION, VIEWS


@pytest.fixture
def connection() -> Iterator[Connection]:
    with create_engine(database_url()).connect() as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def inspector(connection: Connection) -> Inspector:
    return inspect(connection)


@pytest.fixture
def session(connection: Connection) -> Iterator[Session]:
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        yield session


def recording(**values: object) -> Recording:
    sound = b"sound"
    return Recording(
        **{"title": "t", "media_type": "audio/wav", "audio": sound, "audio_bytes": len(sound), "audio_sha256": ""}
        | values
    )


def test_there_is_one_head_and_it_is_the_expected_one() -> None:
    config = Config(Path(__file__).parents[1] / "alembic.ini")
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


def test_the_database_is_at_the_expected_revision(connection: Connection) -> None:
    assert MigrationContext.configure(connection).get_current_heads() == (REVISION,)


def test_tables_and_columns_are_there(inspector: Inspector) -> None:
    assert set(inspector.get_table_names()) - {"alembic_version"} == set(COLUMNS)
    assert {t: {column["name"] for column in inspector.get_columns(t)} for t in COLUMNS} == COLUMNS


def test_views_are_there(inspector: Inspector) -> None:
    assert set(inspector.get_view_names()) == VIEWS


@pytest.mark.parametrize("table", INDEXES)
def test_indexes_are_there(inspector: Inspector, table: str) -> None:
    assert INDEXES[table] <= {index["name"] for index in inspector.get_indexes(table)}


def test_no_index_is_invalid(connection: Connection) -> None:
    invalid = text("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid OR NOT indisready")
    assert connection.scalars(invalid).all() == []


def test_models_and_tables_are_the_same(connection: Connection) -> None:
    assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_a_recording_and_its_transcript_can_be_written_and_read(session: Session) -> None:
    user = User(username=f"test-{uuid.uuid4()}", email=f"{uuid.uuid4()}@example.com", password_hash="!")
    session.add(user)
    session.flush()
    written = recording(user_id=user.id)
    session.add(written)
    session.flush()
    session.add_all(
        [
            Transcript(
                recording_id=written.id,
                language="en",
                text="two words",
                words_sha256=words_digest("two words"),
                engine="test",
            ),
            Job(id=uuid.uuid4(), recording_id=written.id),
        ]
    )
    session.flush()
    session.expire_all()

    assert written.status is RecordingStatus.uploaded
    assert written.reference.startswith("REC-")
    assert session.scalar(select(Job.state).where(Job.recording_id == written.id)) is JobState.queued
    overview = text("SELECT username, language, characters FROM recording_overview WHERE id = :id")
    assert session.execute(overview, {"id": written.id}).one() == (user.username, "en", len("two words"))


def test_a_recording_without_sound_is_refused(session: Session) -> None:
    session.add(recording(audio=b"", audio_bytes=0))
    with pytest.raises(IntegrityError, match="recordings_audio_bytes_check"):
        session.flush()


def test_a_recording_of_an_unknown_user_is_refused(session: Session) -> None:
    session.add(recording(user_id=-1))
    with pytest.raises(IntegrityError, match="recordings_user_id_fkey"):
        session.flush()

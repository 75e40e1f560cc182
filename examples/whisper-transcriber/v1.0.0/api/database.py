"""One engine per process."""

from collections.abc import Iterator
from functools import cache
from typing import Annotated

from fastapi import Depends
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from api.settings import database_url


@cache
def engine() -> Engine:
    # pool_pre_ping: connections may be ended at any time (failover, a restored database swapped in);
    # the next request then opens a new one instead of failing.
    return create_engine(
        database_url(),
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=5,
        pool_timeout=5,
        connect_args={"application_name": "whisper-transcriber", "connect_timeout": 5},
    )


def _session() -> Iterator[Session]:
    with Session(engine()) as session:
        yield session


DatabaseSession = Annotated[Session, Depends(_session)]

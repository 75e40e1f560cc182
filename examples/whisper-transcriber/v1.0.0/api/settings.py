"""Settings, all from the environment and read when they are needed, so that importing a module asks for nothing."""

import os

from sqlalchemy import URL, make_url


def _required(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise RuntimeError(f"the environment variable {name} is not set")
    return value


def database_url() -> URL:
    """DATABASE_URL for psycopg 3, whichever of the usual PostgreSQL schemes it was written with."""
    scheme, separator, rest = _required("DATABASE_URL").partition("://")
    if not separator or scheme.partition("+")[0] not in ("postgres", "postgresql"):
        raise RuntimeError("DATABASE_URL must name a PostgreSQL database")
    return make_url(f"postgresql+psycopg://{rest}")


def redis_url() -> str:
    return _required("REDIS_URL")


def admin_password() -> str:
    return _required("ADMIN_PASSWORD")

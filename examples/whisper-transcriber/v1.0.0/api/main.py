"""The HTTP API: `uvicorn api.main:app`."""

from fastapi import FastAPI

from api import __version__
from api.routes import admin, health, jobs, recordings

app = FastAPI(title="Whisper Transcriber", version=__version__)
for part in (health, admin, recordings, jobs):
    app.include_router(part.router)

"""What runs inside the service's own Python while Alembic migrates: a barrier before each revision, a report of every
statement, time limits by class of statement. Python 3.8 or later, Alembic 1.8 or later, SQLAlchemy 1.4 or later.

`install` is called once Alembic can be imported. Whatever goes wrong in here is told as a note and never reaches the
migration. Settings, from the environment: RUNBOOK_LIMITS, JSON: {class: {"lock": ms, "statement": ms}}; RUNBOOK_TRACE_LOCKS:
look up the locks after every statement; RUNBOOK_KEEP_WRITERS_OUT, JSON: [SQL names of tables], see writers.py.
"""

import json
import os

from .barrier import Progress, hold_revisions
from .channel import Channel
from .statements import StatementReports
from .writers import Writers

__all__ = ["Channel", "install"]


def install(channel):
    from alembic.runtime.migration import MigrationContext, RevisionStep

    progress = Progress()
    reports = None
    try:
        settings = json.loads(os.environ.get("RUNBOOK_LIMITS") or "null")
        reports = StatementReports(channel, progress, settings, bool(os.environ.get("RUNBOOK_TRACE_LOCKS")))
        reports.listen()
        loaded = {"event": "reporter-loaded"}
    except Exception as error:
        loaded = {"event": "reporter-absent", "why": channel.describe(error)}
    tables = json.loads(os.environ.get("RUNBOOK_KEEP_WRITERS_OUT") or "[]")
    writers = Writers(reports, tables) if tables else None
    try:
        hold_revisions(channel, progress, MigrationContext, RevisionStep, loaded, writers)
    except AttributeError as error:
        channel.tell({"event": "barrier-unavailable", "why": str(error)})

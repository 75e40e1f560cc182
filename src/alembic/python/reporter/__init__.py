"""What runs inside the service's own Python while Alembic migrates: a barrier before each revision, a report of every
statement, time limits by class of statement. Python 3.8 or later, Alembic 1.8 or later, SQLAlchemy 1.4 or later.

`install` is called once Alembic can be imported. Whatever goes wrong in here is told as a note and never reaches the
migration. Settings, from the environment: RUNBOOK_LIMITS, JSON: {class: {"lock": ms, "statement": ms}}; RUNBOOK_TRACE_LOCKS:
look up the locks after every statement.
"""

import json
import os

from .barrier import Progress, hold_revisions
from .channel import Channel
from .statements import StatementReports

__all__ = ["Channel", "install"]


def install(channel):
    from alembic.runtime.migration import MigrationContext, RevisionStep

    progress = Progress()
    try:
        settings = json.loads(os.environ.get("RUNBOOK_LIMITS") or "null")
        StatementReports(channel, progress, settings, bool(os.environ.get("RUNBOOK_TRACE_LOCKS"))).listen()
        loaded = {"event": "reporter-loaded"}
    except Exception as error:
        loaded = {"event": "reporter-absent", "why": channel.describe(error)}
    try:
        hold_revisions(channel, progress, MigrationContext, RevisionStep, loaded)
    except AttributeError as error:
        channel.tell({"event": "barrier-unavailable", "why": str(error)})

"""Runs the `alembic` command in the service's own Python, with a barrier before each revision.

    launch.py -c alembic.ini upgrade ae1027a6acf

Before a revision runs, one line of JSON goes to the file descriptor RUNBOOK_EVENTS_FD, and the revision waits for the line
`ok` on RUNBOOK_ACK_FD. Anything else, or the end of the file, stops the command before the revision has done anything.
Without these variables this is plain `alembic`. On Linux the command also dies with the process RUNBOOK_WORKER_PID, if
that is its parent.

Events: {"event": "revision-start", "revision", "direction": "upgrade" | "downgrade", "committed"}, where `committed` tells
that all revisions before it are committed (one transaction each); {"event": "revision-applied", "revision", "direction",
"rows"} after the version rows were written, inside the transaction; {"event": "barrier-unavailable", "why"} where this
Alembic cannot be held; {"event": "finished"} after a command without error.
"""

import json
import os
import signal
import sys

# The folder of this file is first on sys.path, and its modules would hide the service's of the same name.
if sys.path and os.path.abspath(sys.path[0]) == os.path.dirname(os.path.abspath(__file__)):
    del sys.path[0]

STOPPED = 75


def main(argv):
    die_with_worker(os.environ.pop("RUNBOOK_WORKER_PID", ""))
    channel = Channel.from_environment()
    if channel is not None:
        install_barrier(channel)
    from alembic.config import main as alembic

    alembic(argv=argv, prog="alembic")
    if channel is not None:
        channel.tell({"event": "finished"})


def die_with_worker(worker):
    if not worker or not sys.platform.startswith("linux") or os.getppid() != int(worker):
        return
    try:
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):
        return
    if os.getppid() != int(worker):
        os.kill(os.getpid(), signal.SIGKILL)


class Channel:
    def __init__(self, events, acknowledgements):
        self.events = events
        self.acknowledgements = acknowledgements
        for descriptor in (events, acknowledgements):
            os.set_inheritable(descriptor, False)

    @classmethod
    def from_environment(cls):
        events = os.environ.pop("RUNBOOK_EVENTS_FD", "")
        acknowledgements = os.environ.pop("RUNBOOK_ACK_FD", "")
        return cls(int(events), int(acknowledgements)) if events and acknowledgements else None

    def tell(self, event):
        line = memoryview((json.dumps(event) + "\n").encode("utf-8"))
        while line:
            line = line[os.write(self.events, line) :]

    def ask(self, event):
        """Whether the other side wants it to go on. A worker that is gone wants nothing."""
        try:
            self.tell(event)
            return self.answer() == b"ok"
        except OSError:
            return False

    def answer(self):
        answer = b""
        while True:
            byte = os.read(self.acknowledgements, 1)
            if byte in (b"", b"\n"):
                return answer if byte else b""
            answer += byte


def install_barrier(channel):
    try:
        from alembic.runtime.migration import MigrationContext, RevisionStep

        hold_revisions(channel, MigrationContext, RevisionStep)
    except (ImportError, AttributeError) as error:
        channel.tell({"event": "barrier-unavailable", "why": str(error)})


def hold_revisions(channel, context_class, step_class):
    run_migrations = context_class.run_migrations
    context_init = context_class.__init__
    step_init = step_class.__init__
    running = {"context": None, "steps": 0}

    def run(self, **arguments):
        running["context"] = self
        running["steps"] = 0
        return run_migrations(self, **arguments)

    def init_context(self, *positional, **named):
        context_init(self, *positional, **named)
        callbacks = getattr(self, "on_version_apply_callbacks", None)
        if callbacks is not None and not self.as_sql:
            self.on_version_apply_callbacks = tuple(callbacks) + (applied,)

    def applied(ctx=None, step=None, heads=(), run_args=None, **_more):
        if not step.is_stamp:
            channel.tell(
                {
                    "event": "revision-applied",
                    "revision": ",".join(step.up_revision_ids),
                    "direction": direction(step.is_upgrade),
                    "rows": sorted(heads),
                }
            )

    def init_step(self, revision_map, revision, is_upgrade):
        step_init(self, revision_map, revision, is_upgrade)
        migrate = self.migration_fn

        def held(*positional, **named):
            context = running["context"]
            if context is None or not context.as_sql:
                committed = running["steps"] == 0 or commits_each(context)
                running["steps"] += 1
                event = {
                    "event": "revision-start",
                    "revision": revision.revision,
                    "direction": direction(is_upgrade),
                    "committed": committed,
                }
                if not channel.ask(event):
                    sys.stderr.write("stopped before revision %s\n" % revision.revision)
                    raise SystemExit(STOPPED)
            return migrate(*positional, **named)

        self.migration_fn = held

    context_class.run_migrations = run
    context_class.__init__ = init_context
    step_class.__init__ = init_step


def commits_each(context):
    """Whether each revision has a transaction of its own, which ended before the next began."""
    if context is None or getattr(context, "_in_external_transaction", True):
        return False
    return bool(getattr(context, "_transaction_per_migration", False)) or not context.impl.transactional_ddl


def direction(is_upgrade):
    return "upgrade" if is_upgrade else "downgrade"


if __name__ == "__main__":
    main(sys.argv[1:])

"""Runs the `alembic` command in the service's own Python, with a barrier before each revision.

    launch.py -c alembic.ini upgrade ae1027a6acf

Before a revision runs, one line of JSON goes to the file descriptor RUNBOOK_EVENTS_FD, and the revision waits for the line
`ok` on RUNBOOK_ACK_FD. Anything else, or the end of the file, stops the command before the revision has done anything.
Without these variables this is plain `alembic`. On Linux the command also dies with the process RUNBOOK_WORKER_PID, if
that is its parent.

Events: {"event": "revision-start", "revision", "direction": "upgrade" | "downgrade", "committed"}, where `committed` tells
that all revisions before it are committed (one transaction each); {"event": "revision-applied", "revision", "direction",
"rows"} after the version rows were written, inside the transaction; {"event": "barrier-unavailable", "why"} where this
Alembic cannot be held; {"event": "finished"} after a command without error; those of statements: reporter/statements.py;
{"event": "end"}, answered with a line when everything has been read.
"""

import os
import signal
import sys

_own_folder = os.path.dirname(os.path.abspath(__file__))
# The folder of this file is first on sys.path, and its modules would hide the service's of the same name.
if sys.path and os.path.abspath(sys.path[0]) == _own_folder:
    del sys.path[0]


def main(argv):
    die_with_worker(os.environ.pop("RUNBOOK_WORKER_PID", ""))
    if "RUNBOOK_EVENTS_FD" not in os.environ:
        run_alembic(argv)
        return
    reporter = load_reporter()
    channel = reporter.Channel.inherited()
    try:
        try:
            reporter.install(channel)
        except ImportError as error:
            channel.tell({"event": "barrier-unavailable", "why": str(error)})
        run_alembic(argv)
        channel.tell({"event": "finished"})
    finally:
        channel.end()


def run_alembic(argv):
    from alembic.config import main as alembic

    alembic(argv=argv, prog="alembic")


def load_reporter():
    """Under a name of its own, without its folder on sys.path."""
    import importlib.util

    folder = os.path.join(_own_folder, "reporter")
    spec = importlib.util.spec_from_file_location(
        "_runbook_reporter", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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


if __name__ == "__main__":
    main(sys.argv[1:])

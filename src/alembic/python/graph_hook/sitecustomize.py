"""Notes the migration graph that a service's own command loads.

Python imports `sitecustomize` by itself at its start. With this folder on PYTHONPATH it is this one: it imports the one it
stands in front of, if there is one, notes every ScriptDirectory that is made, however the command has configured it, and
at the end of the process writes their graphs as JSON to a file in the folder RUNBOOK_GRAPH_FOLDER:

    {"graphs": [{"folders", "graph" or "error"}]}       the documents of graph.py, and where the revisions are

Nothing of the command is changed: neither its output nor its exit code. Works with Python 3.8 and Alembic 1.8 or later.
"""

import os
import sys

_own_folder = os.path.dirname(os.path.abspath(__file__))
_noted = []


def _hand_on():
    """Runs the `sitecustomize` that would have been imported without this folder."""
    import importlib.machinery
    import importlib.util

    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _own_folder]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize")
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


class _WaitForAlembic:
    """Finds `alembic.script.base` once, as Python would have, and has a look at it when it is loaded."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != "alembic.script.base":
            return None
        import importlib.machinery

        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or not hasattr(spec.loader, "exec_module"):
            return None
        load = spec.loader.exec_module

        def load_and_watch(module):
            load(module)
            _watch(module.ScriptDirectory)

        spec.loader.exec_module = load_and_watch
        return spec


def _watch(script_directory):
    made = script_directory.__init__

    def make_and_note(self, *args, **kwargs):
        made(self, *args, **kwargs)
        if not _noted:
            import atexit

            # Registered this late it runs before the end of logging and of whatever else the command has set up.
            atexit.register(_write)
        _noted.append((os.getpid(), self))

    script_directory.__init__ = make_and_note


def _write():
    folder, root = os.environ.get("RUNBOOK_GRAPH_FOLDER"), os.environ.get("RUNBOOK_GRAPH_ROOT")
    if not folder or not root:
        return
    import importlib.util
    import json

    path = os.path.join(os.path.dirname(_own_folder), "graph.py")
    spec = importlib.util.spec_from_file_location("_runbook_graph", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    graphs = []
    # What a parent process has noted before it forked is the parent's to write.
    for directory in [noted for process, noted in _noted if process == os.getpid()]:
        entry = {"folders": []}
        try:
            entry["folders"] = [str(folder) for folder in directory.version_locations or [directory.versions]]
            entry["graph"] = module.document_of(directory, root)
        except BaseException as error:
            entry["error"] = {"type": type(error).__name__, "message": str(error)[:1000]}
        graphs.append(entry)
    name = os.path.join(folder, "graph-%d.json" % os.getpid())
    with open(name + ".part", "w", encoding="utf-8") as file:
        json.dump({"graphs": graphs}, file)
    os.rename(name + ".part", name)


if os.environ.get("RUNBOOK_GRAPH_FOLDER"):
    sys.meta_path.insert(0, _WaitForAlembic)
_hand_on()

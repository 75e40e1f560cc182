"""First on PYTHONPATH of a service's own command: brings our part into whichever of its Python processes uses Alembic.

All others only get one more finder, which waits for Alembic's import. A `sitecustomize` that this one hides is run too.
The environment: RUNBOOK_EVENTS_SOCKET, the worker's socket; more in ../reporter/__init__.py.
"""

import sys


class _AlembicFinder:
    """Lets the module be found as ever, and loads our part once it has been executed."""

    module = "alembic.runtime.migration"

    def __init__(self, folder, address):
        self.folder = folder
        self.address = address
        self.searching = False

    def find_spec(self, name, path=None, target=None):
        if name != self.module or self.searching:
            return None
        self.searching = True
        try:
            from importlib.util import find_spec

            spec = find_spec(name)
        finally:
            self.searching = False
        if spec is not None and hasattr(spec.loader, "exec_module"):
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                self.install()

            try:
                spec.loader.exec_module = exec_module
            except AttributeError:
                pass
        return spec

    def install(self):
        if self not in sys.meta_path:
            return
        sys.meta_path.remove(self)
        try:
            import atexit
            import importlib.util
            import os

            folder = os.path.join(self.folder, "reporter")
            spec = importlib.util.spec_from_file_location(
                "_runbook_reporter", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
            )
            reporter = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = reporter
            spec.loader.exec_module(reporter)
            channel = reporter.Channel.connected(self.address)
            atexit.register(channel.end)
            reporter.install(channel)
        except Exception:
            # The worker sees that nobody came; the service's command goes on as without us.
            pass


def _prepare():
    import os

    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    address = os.environ.get("RUNBOOK_EVENTS_SOCKET")
    if address:
        sys.meta_path.insert(0, _AlembicFinder(os.path.dirname(here), address))


def _run_hidden():
    own = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # noqa: F401  the one after ours on the path
    except ImportError as error:
        if getattr(error, "name", None) != "sitecustomize":
            raise
    finally:
        if own is not None:
            sys.modules.setdefault("sitecustomize", own)


_prepare()
_run_hidden()

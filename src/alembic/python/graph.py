"""Prints the Alembic migration graph of a service as one JSON document.

Runs inside the service's own Python (3.8 or later) with its own Alembic (1.8 or later). It loads the revision files, as
every Alembic command does, but neither env.py nor a database. The document goes to the file descriptor named by
RUNBOOK_GRAPH_FD, so that whatever the service's modules print cannot break it; without the variable, to standard output.

    graph.py --config alembic.ini --root /path/of/the/checkout
"""

import argparse
import hashlib
import json
import os
import platform
import sys

# The folder of this file is first on sys.path, and its modules would hide the service's of the same name.
_own_folder = os.path.dirname(os.path.abspath(__file__))
if sys.path and os.path.abspath(sys.path[0]) == _own_folder:
    del sys.path[0]


def _load_scan():
    import importlib.util

    spec = importlib.util.spec_from_file_location("_runbook_scan", os.path.join(_own_folder, "scan.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    arguments = argparse.ArgumentParser(prog="graph.py")
    arguments.add_argument("--config", required=True)
    arguments.add_argument("--root", default=os.getcwd())
    options = arguments.parse_args()
    channel = int(os.environ.pop("RUNBOOK_GRAPH_FD", "1"))
    try:
        document = read_graph(options.config, options.root)
    except BaseException as error:  # a revision file may raise anything, SystemExit included
        import traceback

        traceback.print_exc()
        write(channel, {"error": {"type": type(error).__name__, "message": str(error)[:1000]}})
        return 1
    write(channel, document)
    return 0


def write(channel, document):
    text = memoryview((json.dumps(document) + "\n").encode("utf-8"))
    while text:
        text = text[os.write(channel, text) :]


def read_graph(config_path, root):
    from alembic.script import ScriptDirectory

    if not os.path.isfile(config_path):
        raise FileNotFoundError("no Alembic configuration at %s" % config_path)
    return document_of(ScriptDirectory.from_config(load_config(config_path)), root)


def load_config(path):
    """As `alembic -c` does: from version 1.16 on the path may be a pyproject.toml, or one may stand beside it."""
    from alembic.config import CommandLine, Config

    files = getattr(CommandLine(), "_inis_from_config", None)
    if files is None:
        return Config(path)
    toml, ini = files(argparse.Namespace(config=[path]))
    return Config(ini, toml_file=toml)


def document_of(directory, root):
    import alembic
    import sqlalchemy

    scan = _load_scan()
    return {
        "alembic": alembic.__version__,
        "sqlalchemy": sqlalchemy.__version__,
        "python": platform.python_version(),
        "heads": sorted(directory.get_heads()),
        "bases": sorted(directory.get_bases()),
        "revisions": [describe(script, root, scan) for script in in_map_order(directory)],
    }


def in_map_order(directory):
    """The order of Alembic's own map decides ties when it sorts revisions, so it is kept."""
    scripts = {script.revision: script for script in directory.walk_revisions()}
    keys = getattr(directory.revision_map, "_revision_map", None) or scripts
    ordered = [key for key in keys if key in scripts and scripts[key].revision == key]
    return [scripts[key] for key in ordered] if len(ordered) == len(scripts) else list(scripts.values())


def describe(script, root, scan):
    with open(script.path, "rb") as file:
        content = file.read()
    found = scan.scan_revision(content)
    return {
        "revision": script.revision,
        "downRevisions": as_list(script.down_revision),
        # Resolved: a dependency may be declared by a label. Normalized: without those that its ancestors have already.
        "dependsOn": sorted(as_list(getattr(script, "_normalized_resolved_dependencies", script.dependencies))),
        "branchLabels": sorted(script.branch_labels or ()),
        "file": os.path.relpath(os.path.realpath(script.path), os.path.realpath(root)),
        "sha256": hashlib.sha256(content).hexdigest(),
        "doc": (script.doc or "")[:200],
        "transactional": found["transactional"] if hasattr(script.module, "upgrade") else "unknown",
        "outsideTransaction": found["outside"] if hasattr(script.module, "upgrade") else "anything",
        "downgradeTransactional": found["downgradeTransactional"] if hasattr(script.module, "downgrade") else "unknown",
        "downgrade": found["downgrade"] if hasattr(script.module, "downgrade") else "absent",
        "operations": found["operations"],
    }


def as_list(value):
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


if __name__ == "__main__":
    sys.exit(main())

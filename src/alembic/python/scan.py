"""What the source of one revision file tells without running it.

`transactional`: `no` when its upgrade, or a function of the file that the upgrade uses, leaves Alembic's transaction: an
autocommit block, a commit of its own, a connection of its own, SQL that ends transactions or cannot run inside one.
`unknown` when it calls code of the service, or reads its SQL from elsewhere. `yes` otherwise.

`downgradeTransactional`: the same of its downgrade.

`outside`: what can be left when the revision is interrupted. `nothing` when it is transactional; `indexes` when all it
does is to create and drop indexes; `anything` otherwise.

`downgrade`: `empty` when it does nothing, `raises` when it always raises, else `present`; a `raise` that is conditional,
or hands on an exception after cleaning up, is no refusal.

`operations`: the names of what its upgrade calls of Alembic's operations and of connections and sessions, in the order of
the source, each once: `add_column`, `execute`. What code of the service calls is not among them.
"""

import ast
import re
import sys

_leaves_transaction = frozenset(["autocommit_block", "commit"])
_opens_connection = frozenset(["create_engine", "create_async_engine", "engine_from_config", "connect"])
_runs_elsewhere = frozenset(["open", "exec", "eval", "__import__", "import_module", "read_text", "run_path"])
_outside_transaction = re.compile(
    r"(^|;)\s*(COMMIT|END|ROLLBACK|ABORT|BEGIN|START\s+TRANSACTION|PREPARE\s+TRANSACTION|VACUUM|"
    r"(CREATE|DROP)\s+DATABASE|ALTER\s+SYSTEM)\s*($|;|\s)|\bINDEX\s+CONCURRENTLY\b|"
    r"\bCONCURRENTLY\s+IF\b|\bDETACH\s+PARTITION\b.*\bCONCURRENTLY\b",
    re.IGNORECASE | re.DOTALL,
)
_plpgsql = re.compile(r"\$(\w*)\$.*?\$\1\$", re.DOTALL)
_index_calls = frozenset(
    ["create_index", "drop_index", "get_context", "autocommit_block", "f", "text", "column", "literal_column", "desc", "asc"]
)
_index_statement = re.compile(r"^\s*(CREATE\s+(UNIQUE\s+)?INDEX|DROP\s+INDEX)\b[^;]*;?\s*$", re.IGNORECASE | re.DOTALL)
_executes = frozenset(
    ["execute", "exec_driver_sql", "commit", "autocommit_block", "bulk_insert_mappings", "bulk_update_mappings",
     "bulk_save_objects", "add_all", "create", "drop", "create_all", "drop_all"]
)
_plumbing = frozenset(["get_bind", "get_context", "f", "inline_literal"])
_known_packages = frozenset(["alembic", "sqlalchemy"])


def scan_revision(content):
    try:
        module = ast.parse(content)
    except (SyntaxError, ValueError):  # ValueError: compiled, without its source
        return {
            "transactional": "unknown", "downgradeTransactional": "unknown", "outside": "anything",
            "downgrade": "present", "operations": [],
        }
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    transactional = _transactional(module, functions, "upgrade")
    return {
        "transactional": transactional,
        "downgradeTransactional": _transactional(module, functions, "downgrade"),
        "outside": _outside(transactional, functions),
        "downgrade": _downgrade(functions.get("downgrade")),
        "operations": _operations(module, functions),
    }


def _transactional(module, functions, entry):
    function = functions.get(entry)
    if function is None or function.decorator_list:
        return "unknown"
    reached = _reached(entry, functions)
    constants = [node for node in module.body if isinstance(node, (ast.Assign, ast.AnnAssign))]
    foreign = set()
    for node in module.body + reached:
        foreign.update(_foreign_names(node))
    verdict = "yes"
    for part in reached + constants:
        for node in ast.walk(part):
            found = _judge(node, foreign)
            if found == "no":
                return "no"
            if found == "unknown":
                verdict = "unknown"
    return verdict


def _outside(transactional, functions):
    if transactional == "yes":
        return "nothing"
    upgrade = functions.get("upgrade")
    if transactional == "unknown" or upgrade is None:
        return "anything"
    calls = [node for part in _reached("upgrade", functions) for node in ast.walk(part) if isinstance(node, ast.Call)]
    return "indexes" if all(_concerns_indexes(call, functions) for call in calls) else "anything"


def _concerns_indexes(call, functions):
    name = _last_name(call.func)
    if name == "execute":
        return len(call.args) == 1 and not call.keywords and _is_index_statement(call.args[0])
    return name in _index_calls or name in functions


def _is_index_statement(node):
    if isinstance(node, ast.Call) and _last_name(node.func) == "text" and len(node.args) == 1:
        node = node.args[0]
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(_index_statement.match(node.value))


def _reached(entry, functions):
    """The function of that name and those of the file whose names occur in it, transitively."""
    reached, waiting = [], [entry]
    while waiting:
        function = functions.get(waiting.pop())
        if function is None or function in reached:
            continue
        reached.append(function)
        waiting.extend(node.id for node in ast.walk(function) if isinstance(node, ast.Name))
    return reached


def _judge(node, foreign):
    if isinstance(node, ast.Call):
        return _judge_call(node, foreign)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        # BEGIN and END inside a function's body are blocks of its language.
        return "no" if _outside_transaction.search(_plpgsql.sub("''", node.value)) else None
    return None


def _judge_call(call, foreign):
    name = _last_name(call.func)
    if name in _leaves_transaction or name in _opens_connection:
        return "no"
    for keyword in call.keywords:
        if keyword.arg == "isolation_level":
            return "no"
        if keyword.arg == "postgresql_concurrently" and not _is_false(keyword.value):
            return "no"
    if name in _runs_elsewhere:
        return "unknown"
    # Calling a class of the service (a column type, an enum) runs no statements.
    if _first_name(call.func) in foreign and not (name or "").lstrip("_")[:1].isupper():
        return "unknown"
    return None


def _operations(module, functions):
    upgrade = functions.get("upgrade")
    if upgrade is None:
        return []
    reached = _reached("upgrade", functions)
    handles, alone = _handles([node for part in module.body + reached for node in ast.walk(part)])
    calls = [node for part in reached for node in ast.walk(part) if isinstance(node, ast.Call)]
    names = []
    for call in sorted(calls, key=lambda node: (node.end_lineno, node.end_col_offset)):
        name = _operation(call.func, handles, alone)
        if name is not None and name not in _plumbing and name not in names:
            names.append(name)
    return names


def _operation(function, handles, alone):
    if isinstance(function, ast.Name):
        return alone.get(function.id)
    if not isinstance(function, ast.Attribute):
        return None
    owner = function.value
    if isinstance(owner, ast.Name) and owner.id in handles or isinstance(owner, ast.Attribute) and owner.attr == "op":
        return function.attr
    return function.attr if function.attr in _executes else None


def _handles(nodes):
    """Names that stand for Alembic's operations or a batch of them, and operations that were imported alone."""
    handles, alone = set(), {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "alembic":
            handles.update(alias.asname or alias.name for alias in node.names if alias.name == "op")
        elif isinstance(node, ast.ImportFrom) and node.module == "alembic.op":
            alone.update((alias.asname or alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            handles.update(alias.asname for alias in node.names if alias.name == "alembic.op" and alias.asname)
        elif isinstance(node, ast.withitem) and isinstance(node.optional_vars, ast.Name):
            call = node.context_expr
            if isinstance(call, ast.Call) and _last_name(call.func) == "batch_alter_table":
                handles.add(node.optional_vars.id)
    return handles, alone


def _is_false(node):
    return isinstance(node, ast.Constant) and not node.value


def _last_name(node):
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _first_name(node):
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _foreign_names(part):
    """Names bound by imports from anything but Alembic, SQLAlchemy and the standard library."""
    for node in ast.walk(part):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _is_foreign(alias.name):
                    yield (alias.asname or alias.name).split(".")[0]
        elif isinstance(node, ast.ImportFrom) and (node.level > 0 or _is_foreign(node.module or "")):
            for alias in node.names:
                yield alias.asname or alias.name


def _is_foreign(module):
    package = module.split(".")[0]
    return package not in _known_packages and not _is_standard(package)


def _is_standard(package):
    names = getattr(sys, "stdlib_module_names", None)
    if names is not None:
        return package in names
    # Python 3.8 and 3.9 have no list.
    if package in sys.builtin_module_names:
        return True
    import importlib.util
    import sysconfig

    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return False
    origin = (spec.origin if spec is not None else None) or ""
    folder = sysconfig.get_paths()["stdlib"]
    return origin in ("built-in", "frozen") or (origin.startswith(folder) and "site-packages" not in origin)


def _downgrade(function):
    if function is None:
        return "present"
    body = [node for node in function.body if not _does_nothing(node)]
    if not body:
        return "empty"
    if any(isinstance(node, ast.Raise) for node in body):
        return "raises"
    return "present"


def _does_nothing(node):
    if isinstance(node, ast.Pass):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.Return) and (node.value is None or isinstance(node.value, ast.Constant))

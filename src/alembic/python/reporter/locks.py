"""Which relations a session holds locks on, by the names they had when the run first saw them."""

import re

FIRST_OF_USERS = 16384
REMEMBERED = 10000

_RELATIONS = (
    "SELECT CAST(c.oid AS bigint), n.nspname, c.relname FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid >= %d" % FIRST_OF_USERS
)
# What the transaction itself has dropped is in pg_locks, and no longer in its pg_class.
_HELD = (
    "SELECT CAST(l.relation AS bigint), n.nspname, c.relname, l.mode FROM pg_catalog.pg_locks l"
    " LEFT JOIN pg_catalog.pg_class c ON c.oid = l.relation LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE l.locktype = 'relation' AND l.granted AND l.pid = pg_catalog.pg_backend_pid() AND l.relation >= %d" % FIRST_OF_USERS
)


class Names:
    """Of the relations of one database, shared by its connections."""

    def __init__(self):
        self.known = None

    def of(self, oid, schema, name):
        if schema is None:
            return self.known.get(oid, (None, None))
        return self.known.setdefault(oid, (schema, name))


class LockTrace:
    """Of one connection."""

    def __init__(self, names):
        self.names = names
        self.trusted = False
        self.refused = False
        self.last = None
        self.seen = set()

    def prepare(self, run_safely):
        """Before the first statement: relations that it drops have no name after it."""
        if self.names.known is None and not self.refused:
            self.refused = True
            self.names.known = {oid: (schema, name) for oid, schema, name in run_safely(_RELATIONS)}
            self.refused = False

    def after(self, statement, run, run_safely):
        """[[schema, name, mode]], sorted; "same" as after the statement before; None where they cannot be read."""
        if self.refused or self.names.known is None:
            return None
        kind_of_row = re.sub(r"\d+", "0", statement.text) if statement.repeats_locks else None
        if kind_of_row in self.seen and self.last is not None:
            return "same"
        if not self.trusted:
            self.refused = True
            rows = run_safely(_HELD)
            self.refused, self.trusted = False, True
        else:
            rows = run(_HELD)
        held = self._named(rows)
        if kind_of_row is not None and len(self.seen) < REMEMBERED:
            self.seen.add(kind_of_row)
        elif statement.kind != "rows":
            self.seen.clear()
        if held == self.last:
            return "same"
        self.last = held
        return held

    def forget(self):
        self.last = None
        self.seen.clear()

    def _named(self, rows):
        """Catalogs, TOAST and temporary relations are left out."""
        found = set()
        for oid, schema, name, mode in rows:
            schema, name = self.names.of(oid, schema, name)
            if schema is not None and not schema.startswith("pg_"):
                found.add((schema, name, mode))
        return [list(lock) for lock in sorted(found)]

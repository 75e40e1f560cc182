"""Which relations a session holds locks on, by the names they had when the run first saw them."""

FIRST_OF_USERS = 16384

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
    """Of the relations of one database."""

    def __init__(self):
        self.known = None

    def learn(self, run):
        if self.known is None:
            self.known = {oid: (schema, name) for oid, schema, name in run(_RELATIONS)}

    def of(self, oid, schema, name):
        if schema is not None and self.known is not None:
            return self.known.setdefault(oid, (schema, name))
        return (self.known or {}).get(oid, (schema, name))


def held(names, run):
    """[schema, name, mode], sorted. Catalogs, TOAST and temporary relations are left out."""
    found = set()
    for oid, schema, name, mode in run(_HELD):
        schema, name = names.of(oid, schema, name)
        if schema is not None and not schema.startswith("pg_"):
            found.add((schema, name, mode))
    return [list(lock) for lock in sorted(found)]

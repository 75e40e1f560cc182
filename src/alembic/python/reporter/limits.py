"""Time limits by class of statement, set on the connection right before the statement needs them.

A limit that the service sets itself, by SQL or when it connects, is its own affair: that one is left alone until the
transaction (SET LOCAL), or the session, ends, or until it is set back to its default. PostgreSQL documentation, SET: what was
set in a transaction is taken back with it, and with a savepoint.
"""

PARAMETERS = {"lock_timeout": "lock", "statement_timeout": "statement"}
MOST = 2147483647

# source: where the value in force comes from; `session` is a SET, `client` the options of the connection.
_SET_AT_CONNECT = (
    "SELECT name FROM pg_catalog.pg_settings WHERE name IN ('lock_timeout', 'statement_timeout') AND source IN ('session', 'client')"
)


class Limits:
    """Of one connection."""

    def __init__(self, limits, note):
        self.limits = limits
        self.note = note
        self.looked = False
        self.ours = {}
        # parameter: (scope, transaction in which it was set)
        self.theirs = {}
        # [(savepoint, `theirs` when it was set)]
        self.savepoints = []
        # The transaction has locks that keep readers out: whoever waits with it makes them wait.
        self.keeps_out = False

    def set_for(self, statement, run, run_safely):
        """`run(sql)` executes on the connection and gives back the rows; `run_safely` is for what may be refused."""
        limits = (self.limits or {}).get(statement.kind)
        if limits is None:
            return
        if statement.kind == "concurrent" and self.keeps_out:
            limits = {"lock": self.limits["exclusive"]["lock"], "statement": limits["statement"]}
        # A query would fix the snapshot that LOCK is there to take.
        if not self.looked and statement.first != "LOCK":
            self.looked = True
            for (parameter,) in run_safely(_SET_AT_CONNECT):
                self.theirs[parameter] = ("connection", None)
                self.note("%s is set by the service when it connects: it is left as it is" % parameter)
        for parameter, key in PARAMETERS.items():
            milliseconds = min(int(limits[key]), MOST)
            if parameter not in self.theirs and self.ours.get(parameter) != milliseconds:
                self.ours.pop(parameter, None)
                run("SET %s = %d" % (parameter, milliseconds))
                self.ours[parameter] = milliseconds

    def in_force(self, parameter):
        """Milliseconds, where they are ours; None otherwise."""
        return None if parameter in self.theirs else self.ours.get(parameter)

    def statement_ended(self, statement, parameters, transaction, revision, inside):
        """Called after a statement of the migration that did not fail. `inside`: False where no transaction is open now."""
        if statement.kind == "exclusive" and inside is not False:
            self.keeps_out = True
        if statement.first in ("SAVEPOINT", "ROLLBACK"):
            self._savepoint(statement)
        sets = list(statement.sets)
        if parameters and statement.kind == "rows" and "set_config" in statement.text.lower():
            values = set(map(str, _flat(parameters)))
            sets += [(parameter, "session") for parameter in PARAMETERS if parameter in values]
        for parameter, scope in sets:
            self.ours.pop(parameter, None)
            if scope == "default":
                self.theirs.pop(parameter, None)
                continue
            self.theirs[parameter] = (scope, transaction)
            if self.limits is not None:
                self.note(
                    "%s is set by %s itself, for its %s: it is left as it is"
                    % (parameter, "the service" if revision is None else "revision " + revision, scope)
                )

    def _savepoint(self, statement):
        """Names in upper case: two that differ in case only are taken for one, and what was set is asked for again."""
        name = statement.savepoint
        if statement.first == "SAVEPOINT":
            self.savepoints.append((name, dict(self.theirs)))
            return
        for place in reversed(range(len(self.savepoints))):
            if self.savepoints[place][0] == name:
                self.theirs = dict(self.savepoints[place][1])
                del self.savepoints[place + 1 :]
                return

    def savepoint_taken_back(self):
        self.ours.clear()

    def transaction_ended(self, transaction, committed):
        """`committed` is None where nobody knows."""
        self.savepoints = []
        self.keeps_out = False
        if committed is False:
            self.theirs = {name: theirs for name, theirs in self.theirs.items() if theirs[1] != transaction}
        ended = [name for name, theirs in self.theirs.items() if theirs[0] == "transaction"]
        for name in ended:
            del self.theirs[name]
        if not committed:
            self.ours.clear()


def _flat(parameters):
    values = parameters.values() if isinstance(parameters, dict) else parameters
    for value in values:
        if isinstance(value, (dict, list, tuple)):
            yield from _flat(value)
        else:
            yield value

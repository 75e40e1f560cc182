"""Keeps writers out of tables that a downgrade drops, on the migration's own connection, until its transaction ends: rows in
flight are waited for, and what is counted then is all there will be."""

from . import drivers

DEADLOCK = "40P01"
NO_TABLE = ("42P01", "3F000")
NO_RIGHT = ("42501", "42809")
NO_TRANSACTION = "25P01"


class Writers:
    def __init__(self, reports, tables):
        self.reports = reports
        self.tables = tables
        # The transaction in which all of them were locked.
        self.transaction = None

    def keep_out(self, connection, commits_each, committed):
        """LOCK needs no snapshot, so what the revision does first still fixes its own. Raises where a lock is not to be had in
        time, as the downgrade itself would."""
        if self.reports is None:
            return _none("the connection is not known")
        if connection.dialect.name != "postgresql":
            return _none("not PostgreSQL")
        if not committed and self.transaction is not None and self._transaction(connection) == self.transaction:
            return {"kind": "held"}
        self.transaction = None
        refused = self._lock(connection)
        if refused:
            return _none(refused)
        # Counting may take longer than an idle transaction may last.
        self.reports.run_own(connection, "SET LOCAL idle_in_transaction_session_timeout = 0")
        if not commits_each:
            self.transaction = self._transaction(connection)
        return {"kind": "taken"}

    def _lock(self, connection):
        """Why it is refused."""
        wanted = [", ".join(self.tables)]
        refused = []
        deadlocks = 0
        while wanted:
            names = wanted.pop(0)
            tolerated = NO_TABLE + NO_RIGHT + (NO_TRANSACTION,) + ((DEADLOCK,) if deadlocks < 3 else ())
            state = self.reports.run_own(connection, "LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE" % names, tolerated)
            if state == NO_TRANSACTION:
                return "the connection is in no transaction (autocommit)"
            if state == DEADLOCK:
                deadlocks += 1
                wanted.insert(0, names)
            elif state is not None and names not in self.tables:
                wanted = list(self.tables)
            elif state in NO_RIGHT:
                refused.append(names)
        return "the migrator may not lock %s" % ", ".join(refused)[:200] if refused else None

    def _transaction(self, connection):
        pooled = connection.connection
        driver = getattr(pooled, "dbapi_connection", None) or pooled.connection
        return drivers.run(driver, "SELECT pg_catalog.txid_current()")[0][0]


def _none(why):
    return {"kind": "none", "why": why}

"""Reports the statements of the process, by SQLAlchemy's events.

{"event": "statement-start", "revision", "class", "statement", "startedAt"} before each; {"event": "statement", ...the same,
"milliseconds", "rows", "transaction", "sqlstate"?, "limit"?, "locks"?} after it; {"event": "transaction-end", "transaction",
"at"}. Never a parameter's value. What goes past SQLAlchemy (a cursor of the driver itself) is not seen.
"""

import time
import weakref

from . import drivers, sql
from .limits import Limits
from .locks import LockTrace, Names

KEY = "_runbook_session"


class Session:
    """What is known of one connection of the driver."""

    def __init__(self, connection, driver, limits, trace):
        self.connection = connection
        self.in_transaction = drivers.transaction_status(driver)
        self.limits = limits
        self.trace = trace
        self.running = []
        self.transaction = None
        # `True` once the driver said that the transaction is open.
        self.open = False

    def run(self, query):
        return drivers.run(self.connection, query)

    def run_safely(self, query):
        return drivers.run_safely(self.connection, query, self.in_transaction())

    def savepoint_taken_back(self):
        self.limits.savepoint_taken_back()
        if self.trace is not None:
            self.trace.forget()


class Running:
    __slots__ = ("raw", "statement", "revision", "started_at", "began")

    def __init__(self, raw, statement, revision):
        self.raw = raw
        self.statement = statement
        self.revision = revision
        self.started_at = time.time() * 1000
        self.began = time.perf_counter()

    def milliseconds(self):
        return round((time.perf_counter() - self.began) * 1000, 3)


class StatementReports:
    def __init__(self, channel, progress, limits, trace_locks):
        self.channel = channel
        self.progress = progress
        self.limits = limits
        self.trace_locks = trace_locks
        self.transactions = 0
        self.names = {}
        self.sessions = weakref.WeakKeyDictionary()
        self.prepare = self._guarded("reading the catalog", self._prepare)
        self.set_limits = self._guarded("setting limits", self._set_limits)
        self.trace = self._guarded("reading the locks", self._trace)

    def listen(self):
        from sqlalchemy import event
        from sqlalchemy.engine import Engine
        from sqlalchemy.engine.default import DefaultDialect

        event.listen(Engine, "before_cursor_execute", self._guarded("before a statement", self.before))
        event.listen(Engine, "after_cursor_execute", self._guarded("after a statement", self.after))
        event.listen(Engine, "handle_error", self._guarded("after an error", self.error))
        # SQLAlchemy's own events come before the commit, and none comes when a pool takes a connection back.
        for name, committed in (("do_commit", True), ("do_rollback", False)):
            setattr(DefaultDialect, name, self._told(getattr(DefaultDialect, name), committed))

    def _guarded(self, where, handler):
        def guarded(*positional):
            try:
                handler(*positional)
            except Exception as error:
                try:
                    self.channel.trouble(where, error)
                except Exception:
                    pass

        return guarded

    def _told(self, finish, committed):
        ended = self._guarded("at the end of a transaction", self.ended)
        refused = self._guarded("at the end of a transaction", self.end_refused)

        def told(dialect, connection):
            began, started_at = time.perf_counter(), time.time() * 1000
            try:
                result = finish(dialect, connection)
            except Exception as error:
                refused(connection, error, committed, started_at, began)
                raise
            ended(connection, committed)
            return result

        return told

    # -- statements

    def before(self, conn, cursor, statement, parameters, context, executemany):
        if conn.dialect.name != "postgresql":
            return
        session = self._session(conn)
        if session.open and session.in_transaction() is False:
            # It ended behind SQLAlchemy's back.
            self._end(session, None)
        text = sql.examine(statement, conn.dialect.paramstyle in ("pyformat", "format"))
        if text.kind != "session":
            if session.trace is not None and text.first != "LOCK":
                self.prepare(session)
            if self.limits is not None:
                self.set_limits(session, text)
        running = Running(statement, text, self.progress.revision)
        session.running.append(running)
        self.channel.report(self._begun("statement-start", running))
        running.began = time.perf_counter()

    def after(self, conn, cursor, statement, parameters, context, executemany):
        session = self.sessions.get(conn)
        running = self._taken(session, statement)
        if running is None:
            return
        milliseconds = running.milliseconds()
        transaction = self._number(session)
        inside = session.in_transaction()
        session.open = inside is True
        session.limits.statement_ended(running.statement, parameters, transaction, running.revision, inside)
        if running.statement.first == "ROLLBACK":
            session.savepoint_taken_back()
        rows = getattr(cursor, "rowcount", None)
        told = self._begun("statement", running)
        told.update(
            milliseconds=milliseconds,
            rows=rows if isinstance(rows, int) and rows >= 0 else None,
            transaction=transaction,
        )
        if session.trace is not None and inside is True and running.statement.kind != "session":
            self.trace(session, running.statement, told)
        self.channel.report(told)
        if inside is False:
            self._end(session, None if running.statement.kind == "session" else True)

    def error(self, context):
        conn = context.connection
        session = None if conn is None else self.sessions.get(conn)
        running = self._taken(session, context.statement)
        if running is None:
            return
        milliseconds = running.milliseconds()
        told = self._begun("statement", running)
        told.update(milliseconds=milliseconds, rows=None, transaction=self._number(session))
        told.update(self._failure(session, context.original_exception, milliseconds))
        self.channel.report(told)
        session.savepoint_taken_back()
        inside = None if context.is_disconnect else session.in_transaction()
        session.open = inside is True
        if context.is_disconnect or inside is False:
            self._end(session, False)

    @staticmethod
    def _prepare(session):
        session.trace.prepare(session.run_safely)

    @staticmethod
    def _set_limits(session, statement):
        session.limits.set_for(statement, session.run, session.run_safely)

    @staticmethod
    def _trace(session, statement, told):
        locks = session.trace.after(statement, session.run, session.run_safely)
        if locks is not None:
            told["locks"] = locks

    def _begun(self, event, running):
        return {
            "event": event,
            "revision": running.revision,
            "class": running.statement.kind,
            "statement": running.statement.text,
            "startedAt": running.started_at,
        }

    @staticmethod
    def _failure(session, error, milliseconds):
        sqlstate = drivers.sqlstate(error)
        if sqlstate is None:
            return {}
        failure = {"sqlstate": sqlstate}
        if sqlstate == "55P03":
            failure["limit"] = "lock"
        elif sqlstate == "57014":
            # The same code is said of a cancel. The text is in the server's language: then the time tells.
            text, limit = str(error), session.limits.in_force("statement_timeout")
            if "statement timeout" in text or ("user request" not in text and limit and milliseconds >= limit):
                failure["limit"] = "statement"
        return failure

    @staticmethod
    def _taken(session, raw):
        """The statement that ended; those above it in the stack never told their end."""
        running = session.running if session is not None else []
        while running:
            last = running.pop()
            if raw is None or last.raw is raw or last.raw == raw:
                return last
        return None

    # -- statements of ours

    def run_own(self, conn, query, refused=()):
        """Under the limits of the migration's own and told like one; the transaction is left as it was where it is refused.
        Gives back the SQLSTATE, where that is one of `refused`."""
        session = self._session(conn)
        text = sql.examine(query, False)
        if self.limits is not None:
            self.set_limits(session, text)
        running = Running(query, text, self.progress.revision)
        self.channel.report(self._begun("statement-start", running))
        told, state, error = {"rows": None}, None, None
        try:
            drivers.run_safely(session.connection, query, True)
        except Exception as caught:
            error, state = caught, drivers.sqlstate(caught)
            session.savepoint_taken_back()
        milliseconds = running.milliseconds()
        if error is not None and state not in refused:
            told.update(self._failure(session, error, milliseconds))
        told.update(self._begun("statement", running), milliseconds=milliseconds, transaction=self._number(session))
        self.channel.report(told)
        if error is not None and state not in refused:
            raise error
        return state

    # -- transactions

    def ended(self, connection, committed):
        session = self._known(connection)
        if session is not None and session.transaction is not None:
            self._end(session, committed)
        elif session is not None and not committed:
            session.limits.transaction_ended(None, None)

    def end_refused(self, connection, error, committed, started_at, began):
        """A commit checks deferred constraints, and can be refused."""
        session = self._known(connection)
        if session is None or session.transaction is None or not committed:
            return
        milliseconds = round((time.perf_counter() - began) * 1000, 3)
        told = {
            "event": "statement",
            "revision": self.progress.revision,
            "class": "session",
            "statement": "COMMIT",
            "startedAt": started_at,
            "milliseconds": milliseconds,
            "rows": None,
            "transaction": session.transaction,
        }
        told.update(self._failure(session, error, milliseconds))
        self.channel.report(told)
        self._end(session, False)

    def _number(self, session):
        if session.transaction is None:
            self.transactions += 1
            session.transaction = self.transactions
        return session.transaction

    def _end(self, session, committed):
        transaction, session.transaction = session.transaction, None
        session.open = False
        session.limits.transaction_ended(transaction, committed)
        if session.trace is not None:
            session.trace.forget()
        if transaction is not None:
            self.channel.report({"event": "transaction-end", "transaction": transaction, "at": time.time() * 1000})

    # -- sessions

    def _session(self, conn):
        info = conn.info
        session = info.get(KEY)
        if session is None:
            address = getattr(conn.engine, "url", None)
            key = (getattr(address, "host", None), getattr(address, "port", None), getattr(address, "database", None))
            trace = LockTrace(self.names.setdefault(key, Names())) if self.trace_locks else None
            # Not what the pool lends: that must be free to be given back.
            pooled = conn.connection
            connection = getattr(pooled, "dbapi_connection", None) or pooled.connection
            driver = getattr(pooled, "driver_connection", None) or connection
            session = Session(connection, driver, Limits(self.limits, self.channel.note), trace)
            info[KEY] = session
        self.sessions[conn] = session
        return session

    @staticmethod
    def _known(connection):
        try:
            info = connection.info
        except (AttributeError, NotImplementedError):
            # A connection that the pool has not taken in yet.
            return None
        return info.get(KEY) if isinstance(info, dict) else None

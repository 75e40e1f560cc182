"""Holds Alembic before each revision until the worker says `ok`, and knows which revision is running."""

import contextlib
import re
import sys

STOPPED = 75
ends_transaction = re.compile(r"\s*(COMMIT|END|ABORT|ROLLBACK(?!\s+(WORK\s+|TRANSACTION\s+)?TO))\b", re.IGNORECASE)


class Progress:
    """The revision that is running; None before the first and after the last."""

    revision = None


def hold_revisions(channel, progress, context_class, step_class, loaded, writers=None):
    """`loaded` is told when Alembic reaches a database, once. `writers`: kept out of tables while a downgrade runs."""
    from sqlalchemy import event as events
    from sqlalchemy.engine import Engine

    run_migrations = context_class.run_migrations
    context_init = context_class.__init__
    step_init = step_class.__init__
    autocommit_block = context_class.autocommit_block
    running = {"context": None, "steps": 0, "told": False, "open": None, "down": None, "freed": False, "block": False}

    def run(self, **arguments):
        running["context"] = self
        running["steps"] = 0
        return run_migrations(self, **arguments)

    def init_context(self, *positional, **named):
        context_init(self, *positional, **named)
        if self.as_sql:
            return
        if not running["told"]:
            running["told"] = True
            channel.tell(loaded)
        callbacks = getattr(self, "on_version_apply_callbacks", None)
        if callbacks is not None:
            self.on_version_apply_callbacks = tuple(callbacks) + (applied,)

    def applied(ctx=None, step=None, heads=(), run_args=None, **_more):
        progress.revision = None
        running["down"] = None
        if not step.is_stamp:
            channel.tell(
                {
                    "event": "revision-applied",
                    "revision": ",".join(step.up_revision_ids),
                    "direction": direction(step.is_upgrade),
                    "rows": sorted(heads),
                }
            )

    def init_step(self, revision_map, revision, is_upgrade):
        step_init(self, revision_map, revision, is_upgrade)
        migrate = self.migration_fn

        def held(*positional, **named):
            context = running["context"]
            if context is None or not context.as_sql:
                committed = running["steps"] == 0 or commits_each(context)
                running["steps"] += 1
                running["down"] = None if is_upgrade else revision.revision
                keep_writers_out(context, "revision", committed)
                event = {
                    "event": "revision-start",
                    "revision": revision.revision,
                    "direction": direction(is_upgrade),
                    "committed": committed,
                }
                hold(event)
                progress.revision = revision.revision
                running["open"] = None if committed else event
            return migrate(*positional, **named)

        self.migration_fn = held

    def keep_writers_out(context, at, committed):
        running["freed"] = False
        if writers is None or running["down"] is None:
            return
        if context is None or at == "block":
            locks = {"kind": "none", "why": "an autocommit block keeps no lock"}
        else:
            locks = writers.keep_out(context.connection, commits_each(context), committed)
        hold(
            {
                "event": "writers-kept-out",
                "revision": running["down"],
                "at": at,
                "committed": committed,
                "locks": locks,
            }
        )

    def hold(event):
        if not channel.ask(event):
            sys.stderr.write("stopped before revision %s\n" % event["revision"])
            raise SystemExit(STOPPED)

    @contextlib.contextmanager
    def block(self):
        """Entering it commits what all the revisions before have done in one transaction: only now can that be looked at."""
        with autocommit_block(self):
            event, running["open"] = running["open"], None
            if event is not None and not self.as_sql:
                hold({"event": "block-start", "revision": event["revision"], "direction": event["direction"]})
            if not self.as_sql:
                keep_writers_out(self, "block", True)
            running["block"] = True
            try:
                yield
            finally:
                running["block"] = False
        # The next transaction has begun, without the locks of the one before.
        if not self.as_sql:
            keep_writers_out(self, "after-block", True)

    # A revision that has done something before its block is no longer at its start.
    def executed(conn, cursor, statement, parameters, context, executemany):
        running["open"] = None
        if running["freed"] and is_migrations(conn):
            keep_writers_out(running["context"], "after-block", True)

    def is_migrations(conn):
        return running["context"] is not None and conn is running["context"].connection

    # A revision that ends its transaction by itself gives the locks away.
    def ended(conn):
        running["freed"] = not running["block"] and is_migrations(conn)

    def ended_by_statement(conn, cursor, statement, parameters, context, executemany):
        if ends_transaction.match(statement):
            ended(conn)

    if writers is not None:
        events.listen(Engine, "commit", ended)
        events.listen(Engine, "rollback", ended)
        events.listen(Engine, "after_cursor_execute", ended_by_statement)
    events.listen(Engine, "before_cursor_execute", executed)
    context_class.autocommit_block = block
    context_class.run_migrations = run
    context_class.__init__ = init_context
    step_class.__init__ = init_step


def commits_each(context):
    """Whether each revision has a transaction of its own, which ended before the next began."""
    if context is None or getattr(context, "_in_external_transaction", True):
        return False
    return bool(getattr(context, "_transaction_per_migration", False)) or not context.impl.transactional_ddl


def direction(is_upgrade):
    return "upgrade" if is_upgrade else "downgrade"

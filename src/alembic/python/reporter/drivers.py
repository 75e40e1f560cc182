"""What psycopg2, psycopg and asyncpg call the same things."""


def run(connection, query):
    """Executes SQL of ours on the connection that SQLAlchemy uses, past SQLAlchemy's events."""
    cursor = connection.cursor()
    try:
        cursor.execute(query)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
    finally:
        cursor.close()


def run_safely(connection, query, inside):
    """The same for a query that may be refused: the migration's transaction is as it was before, whatever comes."""
    if not inside:
        try:
            return run(connection, query)
        except Exception:
            # The query itself began the transaction that it spoiled.
            connection.rollback()
            raise
    run(connection, "SAVEPOINT _runbook")
    try:
        rows = run(connection, query)
    except Exception:
        run(connection, "ROLLBACK TO SAVEPOINT _runbook")
        run(connection, "RELEASE SAVEPOINT _runbook")
        raise
    run(connection, "RELEASE SAVEPOINT _runbook")
    return rows


def transaction_status(driver):
    """A function that tells whether this connection of the driver is in a transaction, as the driver knows it, without
    asking the server. It says None where the driver does not tell."""
    # asyncpg
    if hasattr(driver, "is_in_transaction") and hasattr(driver, "is_closed"):
        return lambda: not driver.is_closed() and bool(driver.is_in_transaction())
    # libpq's PGTransactionStatusType: 0 is idle, 4 a lost connection.
    if hasattr(driver, "get_transaction_status"):
        return lambda: driver.get_transaction_status() not in (0, 4)
    if hasattr(getattr(driver, "info", None), "transaction_status"):
        return lambda: not driver.closed and int(driver.info.transaction_status) not in (0, 4)
    return lambda: None


def sqlstate(error):
    for name in ("sqlstate", "pgcode"):
        found = getattr(error, name, None)
        if isinstance(found, str) and len(found) == 5:
            return found
    return None

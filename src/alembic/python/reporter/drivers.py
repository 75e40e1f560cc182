"""What psycopg2, psycopg and asyncpg call the same things."""


def run(connection, query):
    """Executes SQL of ours on the connection that SQLAlchemy has from its pool, past SQLAlchemy's events."""
    cursor = connection.cursor()
    try:
        cursor.execute(query)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
    finally:
        cursor.close()


def run_safely(connection, query):
    """The same for a query that may be refused: the migration's transaction is as it was before, whatever comes."""
    if not in_transaction(connection):
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


def in_transaction(connection):
    """Of the connection as the driver knows it, without asking the server. None: this driver does not tell."""
    driver = getattr(connection, "driver_connection", None) or getattr(connection, "dbapi_connection", None)
    if driver is None:
        return None
    if getattr(driver, "closed", False) is True or (callable(getattr(driver, "is_closed", None)) and driver.is_closed()):
        return False
    if hasattr(driver, "is_in_transaction"):
        return bool(driver.is_in_transaction())
    # libpq's PGTransactionStatusType: 0 is idle, 4 a lost connection.
    if hasattr(driver, "get_transaction_status"):
        return driver.get_transaction_status() not in (0, 4)
    status = getattr(getattr(driver, "info", None), "transaction_status", None)
    return None if status is None else int(status) not in (0, 4)


def sqlstate(error):
    for name in ("sqlstate", "pgcode"):
        found = getattr(error, name, None)
        if isinstance(found, str) and len(found) == 5:
            return found
    return None

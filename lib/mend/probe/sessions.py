"""The drivers under SQLAlchemy: questions on the very session that the project uses, and statements as they reach the server."""

from __future__ import annotations

import sys

from mend.probe.sqltext import with_literals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


IDENTITY = """select current_database(), (select oid from pg_catalog.pg_database where datname = current_database()),
 current_user, pg_catalog.inet_server_addr(), pg_catalog.inet_server_port(),
 cast(pg_catalog.pg_postmaster_start_time() as text),
 pg_catalog.current_setting('search_path'), pg_catalog.current_setting('server_version_num'),
 pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'execute')"""
SYSTEM = "select system_identifier from pg_catalog.pg_control_system()"


def driver_connection(adapted: Any) -> Any:
    """The driver's own connection under SQLAlchemy's wrappers, from a pool's or a Connection's ``.connection``."""
    for name in ("driver_connection", "dbapi_connection"):
        inner = getattr(adapted, name, None)
        if inner is not None:
            return inner
    return adapted


def sqlstate(error: Any) -> str:
    origin = getattr(error, "orig", None) or error
    return str(getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None) or "")


def _plain_cursor(connection: Any) -> Any:
    """A cursor that gives tuples, whatever the project has made the default."""
    raw = driver_connection(connection)
    psycopg2, psycopg = sys.modules.get("psycopg2"), sys.modules.get("psycopg")
    if psycopg2 and isinstance(raw, psycopg2.extensions.connection):
        return connection.cursor(cursor_factory=psycopg2.extensions.cursor)
    cursor = connection.cursor()
    if psycopg and isinstance(raw, psycopg.Connection):
        cursor.row_factory = psycopg.rows.tuple_row
    return cursor


def query(conn: Any, sql: str) -> list[Any]:
    """Ask on the same session without SQLAlchemy noticing, so that uncommitted work is seen."""
    cursor = _plain_cursor(conn.connection)
    try:
        cursor.execute(sql)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
    finally:
        cursor.close()


def describe(context: Any) -> dict[str, Any]:
    """A migration context: whom it is connected to and how it was configured."""
    row = query(context.connection, IDENTITY)[0]
    names = (
        "database",
        "database_oid",
        "role",
        "server_address",
        "server_port",
        "started_at",
        "search_path",
        "version_num",
        "may_control",
    )
    system = query(context.connection, SYSTEM)[0][0] if row[8] else None
    return {
        **dict(zip(names, row)),  # noqa: B905 python 3.9
        "system_identifier": None if system is None else str(system),
        "version_table": context.version_table,
        "version_table_schema": context.version_table_schema,
        "transaction_per_migration": bool(context._transaction_per_migration),
        "in_external_transaction": bool(context._in_external_transaction),
        "dialect": context.dialect.name,
        "driver": context.dialect.driver,
    }


def render(raw: Any, statement: str, parameters: Any, context: Any) -> str:
    """The exact text that reaches the server; raises TypeError, ValueError or the driver's error where it has none."""
    if not parameters and context is not None and context.execution_options.get("no_parameters"):
        return statement
    module = type(raw).__mro__[-2].__module__ + " " + type(raw).__module__
    if "psycopg2" in module:
        text = raw.cursor().mogrify(statement, parameters)
        encodings = sys.modules["psycopg2.extensions"].encodings
        return text.decode(encodings[raw.encoding]) if isinstance(text, bytes) else str(text)
    if "asyncpg" in module:
        return with_literals(statement, parameters)
    import psycopg

    cursor = psycopg.AsyncClientCursor if isinstance(raw, psycopg.AsyncConnection) else psycopg.ClientCursor
    return str(cursor(raw).mogrify(statement, parameters))

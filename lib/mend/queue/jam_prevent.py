"""What would have kept a migration out of the queue: limits in env.py, one order of locks, one migrator at a time.  Pure but for reading env.py."""

from __future__ import annotations

import re

from mend.diagnosis import Prevention, Site
from mend.queue.jam import Facts

_TIMEOUTS = """with connectable.connect() as connection:
    context.configure(connection=connection, target_metadata=target_metadata)
    with context.begin_transaction():
        # After configure and inside the transaction: before it, Alembic would take the transaction for yours and never commit.
        # LOCAL: it ends with the transaction; a plain SET stays with the session, and goes back into the pool.
        connection.exec_driver_sql("set local lock_timeout = '2s'")
        connection.exec_driver_sql("set local idle_in_transaction_session_timeout = '60s'")
        context.run_migrations()"""

_MIGRATOR = """KEY = 7243392  # any number that is yours alone
with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as gate:
    while not gate.exec_driver_sql(f"select pg_try_advisory_lock({KEY})").scalar():
        time.sleep(1)  # poll: a session that waits in pg_advisory_lock() holds a snapshot, for which CREATE INDEX CONCURRENTLY waits
    command.upgrade(config, "head")"""


def preventions(site: Site, facts: Facts) -> tuple[Prevention, ...]:
    """What to change, those that this incident speaks for first."""
    found = []
    kinds = {(facts.forest.kind(key)) for key in facts.jammed_roots} if facts.forest else set()
    if not _has_lock_timeout(site):
        found.append(
            Prevention(
                "Let no migration wait for a lock longer than a moment: whoever comes after it waits behind it. Set the limit in env.py, as below (with transaction_per_migration=True: as the first line of each upgrade() instead), and run the migration again when it gives up, as this runbook does with option=retry.",
                _TIMEOUTS,
            )
        )
    if "idle in transaction" in kinds:
        found.append(
            Prevention(
                "End sessions that are idle in a transaction before they are in anybody's way: alter role <the application's> set idle_in_transaction_session_timeout = '60s'."
            )
        )
    if {"another migrator", "another migrator, idle"} & kinds:
        found.append(
            Prevention(
                "Let one migrator work at a time, by an advisory lock on a connection of its own, in AUTOCOMMIT, that polls.",
                _MIGRATOR,
            )
        )
    if "long statement" in kinds:
        found.append(
            Prevention(
                "Give reports a statement_timeout, and let the server notice clients that are gone: client_connection_check_interval = '10s' (PostgreSQL 14 and newer)."
            )
        )
    if "prepared transaction" in kinds:
        found.append(
            Prevention(
                "Watch pg_prepared_xacts: one that is older than a minute is an orphan. Where nobody uses two-phase commit, set max_prepared_transactions = 0."
            )
        )
    if facts.deadlock is not None:
        found.append(
            Prevention(
                f"{facts.deadlock.lesson(facts.names)} In a revision: one ACCESS EXCLUSIVE per transaction (transaction_per_migration=True in context.configure, and one table per revision), or all of them up front in one order: LOCK TABLE a, b IN ACCESS EXCLUSIVE MODE."
            )
        )
    return tuple(found)


def _has_lock_timeout(site: Site) -> bool:
    """Whether env.py says anything of lock_timeout; without a project nobody knows, and the advice is given."""
    if site.project is None:
        return False
    ini = site.project.alembic_ini
    return any(
        re.search(r"lock_timeout", path.read_text(errors="replace")) for path in sorted(ini.parent.glob("*/env.py"))[:3]
    )

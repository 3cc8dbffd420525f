"""A migration stands in a queue, or was cancelled in a deadlock: real sessions and real alembic, which stay when the command ends."""

from __future__ import annotations

import sys
import time
from typing import LiteralString

from mend.errors import LabFailed
from mend.lab import sessions
from mend.lab.bench import Bench, Scenario
from mend.lab.sessions import Command, Session
from mend.lab.shop import HEAD

REVISION = "7c1d90e5ab34"
READERS = 5
_PATIENCE_S, _WAITED_S = 60.0, 1.2
_UPDATE = "update orders set note = 'call before delivery' where id = (select min(id) from orders)"
_READ = "select count(*) from orders where status = 'new'"
_LONG = "select count(*), pg_sleep(14400) from orders"

QUEUE: LiteralString = """
select count(*) filter (where a.application_name not like 'web-%%') as migrations, count(*) as waiting
  from pg_stat_activity as a
 where a.datname = current_database() and a.wait_event_type = 'Lock' and a.query_start < clock_timestamp() - make_interval(secs => %s)
"""


def idle_in_transaction(bench: Bench) -> dict[str, str]:
    """The application changed an order and never came back; the ALTER of the migration waits for it, and every reader for the ALTER."""
    _prepare(bench)
    _sessions(bench, Session("web-7", ("begin", _UPDATE)))
    _wait_for(
        bench,
        "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in tr%%'",
        1,
    )
    _migration(bench, readers=READERS)
    return _parameters(bench)


def queue_behind_reader(bench: Bench) -> dict[str, str]:
    """A report reads the orders for hours; the ALTER waits for it, and every other reader for the ALTER."""
    _prepare(bench)
    _sessions(bench, Session("report", (_LONG,)))
    _wait_for(
        bench, "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'", 1
    )
    _migration(bench, readers=READERS)
    return _parameters(bench)


def dead_client(bench: Bench) -> dict[str, str]:
    """A statement goes on although its client is gone: the server looks for it only when it has something to say."""
    _prepare(bench)
    _sessions(bench, Session("etl", (_LONG,), dies=True))
    _wait_for(
        bench, "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'", 1
    )
    _migration(bench, readers=0)
    return _parameters(bench)


def prepared_transaction(bench: Bench) -> dict[str, str]:
    """A transaction was prepared, and its manager is gone; it holds its locks without any session."""
    _prepare(bench)
    _sessions(bench, Session("payments", ("begin", _UPDATE, f"prepare transaction '{_gid(bench)}'")))
    _wait_for(bench, "select count(*) from pg_prepared_xacts where database = current_database()", 1)
    _migration(bench, readers=READERS)
    return _parameters(bench) | {"gid": _gid(bench)}


def two_migrators(bench: Bench) -> dict[str, str]:
    """Two pods migrate at once: the first stands in the middle of its transaction and waits for a service, the second waits for it."""
    _prepare(bench)
    first = _alembic(
        bench,
        environ={"SHOP_DATABASE_URL": sessions.as_role(bench.project.url, "shop_deploy"), "CACHE_HOST": "unreachable"},
    )
    sessions.start(bench.project.url, commands=[first])
    _wait_for(bench, "select count(*) from pg_locks as l join pg_stat_activity as a using (pid) where a.state like 'idle in tr%%' and l.relation = cast('orders' as regclass) and l.mode = 'AccessExclusiveLock'", 1)  # fmt: skip
    _migration(bench, readers=0)
    return _parameters(bench)


def deadlock(bench: Bench) -> dict[str, str]:
    """The migration locks orders, then customers; the application reads customers, then orders: PostgreSQL cancels the migration."""
    _prepare(bench, both=True)
    for _ in range(3):
        bench.error_file.unlink(missing_ok=True)
        if _collide(bench):
            break
    said = bench.error_file.read_text()
    bench.expect("'deadlock detected' in what alembic said", "deadlock detected" in said, True)
    bench.expect("version row", bench.version(), HEAD)
    return {"revision": REVISION}


def _collide(bench: Bench) -> bool:
    """Whether alembic was the victim: it is, if the other asks before alembic's deadlock_timeout of 200 ms is over."""
    import psycopg

    from mend.lab.shop import plain

    with psycopg.connect(plain(sessions.as_role(bench.project.url, "shop_app")), application_name="web-3") as other:
        other.execute("select count(*) from customers")
        sessions.start(bench.project.url, commands=[_alembic(bench)])
        _wait_for(
            bench, "select count(*) from pg_locks where not granted and relation = cast('customers' as regclass)", 1
        )
        try:
            other.execute("select count(*) from orders")
        except psycopg.errors.DeadlockDetected:
            return False
    _wait_for(
        bench,
        "select 1 - count(*) from pg_stat_activity where datname = current_database() and application_name = '' and pid <> pg_backend_pid()",
        1,
    )
    return True


def _prepare(bench: Bench, *, both: bool = False) -> None:
    """Roles that are no superusers, and the revision that is to be run."""
    bench.change(_ROLES)
    bench.project.add_revision(f"{REVISION}_gift_wrapping", _REVISION.replace("{more}", _MORE if both else ""))


def _sessions(bench: Bench, *wanted: Session) -> None:
    sessions.start(bench.project.url, sessions=wanted)


def _migration(bench: Bench, *, readers: int) -> None:
    """Real alembic, which waits; then readers, which wait for it."""
    sessions.start(bench.project.url, commands=[_alembic(bench)])
    _wait_for(bench, QUEUE, 1, 0.0)
    bench.progress("alembic upgrade head: it waits")
    if readers:
        _sessions(bench, *(Session(f"web-{n + 1}", (_READ,)) for n in range(readers)))
        bench.progress(f"{readers} readers wait behind it")
    deadline = time.monotonic() + _PATIENCE_S
    while bench.query(QUEUE, _WAITED_S) != [(1, readers + 1)]:
        _too_late(bench, deadline, f"the migration and {readers} readers should wait")


def _alembic(bench: Bench, environ: dict[str, str] | None = None) -> Command:
    project = bench.project
    argv = (sys.executable, "-m", "alembic", "-c", str(project.alembic_ini), "upgrade", "head")
    return Command(argv, str(project.directory), str(bench.error_file), {**project.environ, **(environ or {})})


def _wait_for(bench: Bench, sql: LiteralString, at_least: int, *binds: object) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while int(bench.query(sql, *binds)[0][0]) < at_least:
        _too_late(bench, deadline, sql)


def _too_late(bench: Bench, deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise LabFailed(
            f"The lab could not make its incident: after {_PATIENCE_S:.0f} s: {' '.join(what.split())}. Only the lab was touched. `mend lab reset` starts afresh; what alembic said is in {bench.error_file}."
        )
    time.sleep(0.02)


def _gid(bench: Bench) -> str:
    """Of this database: names of prepared transactions are shared by all databases of a server."""
    return f"payments-{bench.query('select current_database()')[0][0]}"


def _parameters(bench: Bench) -> dict[str, str]:
    bench.expect("version row", bench.version(), HEAD)
    return {"revision": REVISION}


SCENARIOS: dict[str, Scenario] = {
    "idle_in_transaction": idle_in_transaction,
    "queue_behind_reader": queue_behind_reader,
    "prepared_transaction": prepared_transaction,
    "two_migrators": two_migrators,
    "dead_client": dead_client,
    "deadlock": deadlock,
}

_ROLES: LiteralString = """do $$
begin
  begin create role shop_app login; exception when duplicate_object then null; end;
  begin create role shop_deploy login in role postgres; exception when duplicate_object then null; end;
  grant select, insert, update, delete on all tables in schema public to shop_app;
  grant usage on all sequences in schema public to shop_app;
end $$"""

_MORE = """
    op.add_column("customers", sa.Column("likes_gift_wrap", sa.Boolean(), nullable=False, server_default=sa.false()))"""

_REVISION = f'''"""Orders can be wrapped as gifts

Revision ID: {REVISION}
Revises: {HEAD}
Create Date: 2026-05-05 11:20:44.905117

"""

import os
import time

import sqlalchemy as sa
from alembic import op

revision = "{REVISION}"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("orders", sa.Column("gift_wrap", sa.Boolean(), nullable=False, server_default=sa.false())){{more}}
    while os.environ.get("CACHE_HOST") == "unreachable":  # the price list must be out of the cache before anybody reads it
        time.sleep(1)


def downgrade() -> None:
    op.drop_column("orders", "gift_wrap")
'''

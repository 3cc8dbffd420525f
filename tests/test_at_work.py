"""Which session is the migration: by its statement, its lock on the version table, its name; and what is hidden."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fix_runs import Look, until
from mend.slow import at_work
from sqlalchemy import Connection

MADE = "create table alembic_version (version_num varchar(32) primary key); create table t (id int, a text); insert into t values (1, 'x')"


def test_who_holds_the_version_table_and_works_is_the_migration(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection]
) -> None:
    prepared(MADE)
    look = Look(database)
    with look.holding("update t set a = 'a secret'") as application, look.connect(autocommit=False) as conn:
        conn.execute("select version_num from alembic_version")
        conn.execute("update t set a = 'b' where false")
        conn.execute("create table made (a int)")
        until(
            lambda: look.query(
                "select clock_timestamp() - xact_start > interval '1.1 s' from pg_stat_activity where pid = %s",
                conn.info.backend_pid,
            )[0][0],
            what="it has lasted a second",
        )
        work = at_work.look(reading())
        found = at_work.migration(work)
        assert found is not None
        assert (found.pid, found.signs) == (conn.info.backend_pid, ("holds the version table and works",))
        assert found.xid
        assert "secret" not in work.frame().to_string()
        assert {one.pid for one in work.sessions} == {application, found.pid}
        by_statement = at_work.migration(at_work.look(reading(), statements=["UPDATE t SET a = 'y'"]))
        assert by_statement is not None
        assert by_statement.pid == application
        named = at_work.migration(at_work.look(reading(), pid=application))
        assert named is not None
        assert named.pid == application
        conn.rollback()


def test_a_statement_of_which_the_server_keeps_the_beginning_is_known_as_such(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection]
) -> None:
    prepared(MADE)
    look = Look(database)
    long = "update t set a = 'x' where " + " and ".join(f"id <> {n}" for n in range(2, 200))
    with look.holding(long) as cut, look.holding("select count(*) from t") as whole:
        found = {one.pid: one.cut for one in at_work.look(reading()).sessions}
    assert (found[cut], found[whole]) == (True, False)


def test_who_waits_behind_it_is_found_through_others(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection]
) -> None:
    prepared(MADE)
    look = Look(database)
    with look.holding("update t set a = 'z'") as pid:
        waiting = [look.connect(application_name=name) for name in ("alter", "reader")]
        threads = [
            threading.Thread(target=conn.execute, args=(text,))
            for conn, text in zip(waiting, (b"alter table t add column b int", b"select * from t"), strict=True)
        ]
        for n, thread in enumerate(threads, 1):
            thread.start()
            until(
                lambda n=n: (
                    look.query(
                        "select count(distinct pid) from pg_locks where not granted and database = (select oid from pg_database where datname = current_database())"
                    )
                    == [(n,)]
                ),
                what="it waits",
            )
        work = at_work.look(reading())
        assert [one.application for one in work.waiting_for(pid)] == ["alter", "reader"]
        assert work.waiting_for(pid)[1].blocked_by == (work.waiting_for(pid)[0].pid,)
        look.execute(f"select pg_terminate_backend({pid})")
        for thread, conn in zip(threads, waiting, strict=True):
            thread.join()
            conn.close()


def test_an_index_build_says_itself_how_far_it_is_and_whom_it_waits_for(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection]
) -> None:
    prepared(MADE)
    look = Look(database)
    with look.holding("update t set a = 'z'") as pid, look.connect() as conn:
        thread = threading.Thread(target=conn.execute, args=(b"create index concurrently i on t (a)",))
        thread.start()
        until(
            lambda: (
                look.query("select count(*) from pg_stat_progress_create_index where current_locker_pid <> 0") == [(1,)]
            ),
            what="it waits",
        )
        work = at_work.look(reading())
        (row,) = work.views(conn.info.backend_pid).to_dict("records")
        assert (row["command"], row["relation"]) == ("CREATE INDEX CONCURRENTLY", "public.t")
        assert f"pid {pid}" in row["detail"]
        assert work.waiting_for(pid)[0].pid == conn.info.backend_pid
        reading().rollback()
        look.execute(f"select pg_terminate_backend({pid})")
        thread.join()

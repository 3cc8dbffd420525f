"""A repair of 200,000 rows that is cut off at a random moment: a resume ends where an undisturbed run would have.

The suite does so a few times; ``MEND_CRASHES=50`` as often.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from fix_bench import Bench
from fix_runs import FORKS, Look, until
from mend import lab
from mend.errors import MendError
from mend.lab.shop import plain
from mend.plan import Step
from mend.postgres.server import Server, find_binaries

ROWS = 200_000
CRASHES = int(os.environ.get("MEND_CRASHES", "4"))
WAYS = ("kill", "terminate", "restart", "crash")
PATIENCE_S = 120
REPAIRED = 150_000


@pytest.fixture(scope="session")
def own_server(session_directory: Path) -> Iterator[Server]:
    """A server that may be restarted, with a table to repair in its database ``specimen``."""
    server = Server(session_directory / "pg-crash", find_binaries(), settings={"autovacuum": "off"}, detached=False)
    server.start()
    with lab.administrator(server) as connection:
        connection.execute("create database specimen")
    Look(server.url("specimen")).execute(
        "create table t (id uuid primary key, email text, name text not null)",
        "insert into t select cast(md5(cast(n as text)) as uuid), case when n % 4 = 0 then 'm' || n end, 'Name' || n "
        f"from generate_series(1, {ROWS}) as n",
        "analyze t",
    )
    yield server
    server.destroy()


@pytest.fixture
def specimen(own_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bench]:
    """A clone of it."""
    url = own_server.url("broken")
    with lab.administrator(own_server) as connection:
        connection.execute("create database broken template specimen")
    monkeypatch.setenv("BENCH_URL", url)
    yield Bench(url, tmp_path / "bench")
    lab.drop(own_server, "broken")


def act(environ: dict[str, str], bench: Bench, step: Step, undo: bool) -> None:
    """In a process of its own: one run; 0 where it was done, 4 where one of our errors ended it."""
    os.environ.update(environ)
    try:
        bench.undo(step) if undo else bench.apply(step)
    except MendError:
        os._exit(4)
    os._exit(0)


def cut_off(server: Server, bench: Bench, step: Step, way: str, *, after_s: float, undo: bool) -> int:
    """Run a step and cut it off; the exit code (negative: the signal)."""
    child = FORKS.Process(target=act, args=(dict(os.environ), bench, step, undo))
    child.start()
    began = "select 1 from pg_stat_activity where application_name ~ '^mend:.*:0' and backend_type = 'client backend'"
    until(lambda: bench.look.query(began) or not child.is_alive(), what="it runs")
    time.sleep(after_s)
    if way == "kill":
        child.kill()
    elif way == "terminate":
        end = "select pg_terminate_backend(pid) from pg_stat_activity where application_name ~ '^mend:.*:0' order by random() limit 1"
        bench.look.query(end)
    elif way == "restart":
        server.stop()
        server.start()
    else:
        running = postmaster(server)
        running.send_signal(signal.SIGQUIT)  # every session ends at once, and recovery begins from the last checkpoint
        running.wait(PATIENCE_S)
        server.start()
    child.join(PATIENCE_S)
    assert child.exitcode is not None
    return child.exitcode


def postmaster(server: Server) -> psutil.Process:
    with psycopg.connect(plain(server.url())) as conn:
        return psutil.Process(psutil.Process(conn.info.backend_pid).ppid())


@pytest.mark.parametrize("number", range(CRASHES))
def test_whatever_cuts_a_repair_off_a_resume_ends_as_if_nothing_had_happened(
    own_server: Server, specimen: Bench, number: int
) -> None:
    way, undo, by = WAYS[number % 4], number % 3 == 2, ("ctid", "keyset")[number // 4 % 2]
    before = specimen.look.rows()
    step = specimen.step(
        "public.t", "update", {"email": "lower(t.name)"}, where="t.email is null", by=by, workers=2, batch_ms=20
    )
    if undo:
        specimen.apply(step)
    after_s = random.uniform(0, 2.5 if undo else 1.3)
    code = cut_off(own_server, specimen, step, way, after_s=after_s, undo=undo)
    print(
        f"{way} after {after_s:.2f} s of {'undo' if undo else 'repair'} by {by}: exit {code}, {rows_done(specimen)} rows done"
    )
    assert code in ({"kill": (-9, 0)}.get(way, (0, 4)))
    specimen.runs += 1  # the child's
    steps = step.undo if undo else (step,)
    if code:
        specimen.resume(*steps)
    assert specimen.state(steps[0]) == "done"
    if not undo:
        wrong = "select count(*) from t where email is distinct from case when email like 'm%' then email else lower(name) end"
        assert specimen.look.query(wrong) == [(0,)]
        whole = "count(*), count(distinct k1), count(o1), count(*) filter (where n1 like 'name%')"
        assert specimen.images(whole) == [(REPAIRED, REPAIRED, 0, REPAIRED)]
        specimen.undo(step)
    assert specimen.look.rows() == before


def rows_done(bench: Bench) -> int:
    with suppress(psycopg.errors.UndefinedTable):
        ((rows,),) = bench.images("count(*) filter (where state = '')")
        return int(rows)
    return 0

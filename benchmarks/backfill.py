"""make bench, second half: what a backfill costs, and what an application feels of it, beside the guide's recipes.

A private server with fsync on; every contestant gets a fresh table, and they take turns.  Only ratios of one run can be compared.

    python benchmarks/backfill.py [--rows 1000000] [--rounds 3] [--patience 120] [--big] [--only speed,latency,...]
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from mend.postgres.server import Server, find_binaries
from rich.console import Console
from rich.table import Table

ROW = "pad text not null default repeat('x', 60)"
FILL = "lower(t.name) || '@example.com'"
UPDATE = "update users set email = lower(name) || '@example.com' where email is null"
GUIDE = """with batch as (select id from users where email is null order by id limit 10000)
update users set email = lower(name) || '@example.com' where id in (select id from batch)"""
APPLICATION = "\\set id random(1, {rows})\nupdate users set seen = now() where id = :id;\n"
RATE, CLIENTS = 400, 8  # updates a second of the application, and its connections
SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "deadlock_timeout": "1s",
}
console = Console(width=130)


class Bench:
    """The server, and how contestants are run on it."""

    def __init__(self, folder: Path, server: Server, options: argparse.Namespace) -> None:
        self.folder, self.server, self.rows, self.rounds = folder, server, int(options.rows), int(options.rounds)
        self.patience_s = float(options.patience)
        self.url = server.url("postgres")
        self.runs = 0
        self.last: dict[str, Any] = {}

    def sql(self, *statements: str) -> None:
        with psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement.encode())

    def count(self, statement: str) -> int:
        with psycopg.connect(self.url.replace("+psycopg", "")) as conn:
            (found,) = conn.execute(statement.encode()).fetchone() or (0,)
        return int(found)

    def users(self, rows: int) -> None:
        """A fresh table in which every row lacks its e-mail address."""
        self.sql(
            "drop schema if exists mend cascade",
            "drop table if exists orders, users cascade",
            f"create table users (id int primary key, name text not null, email text, seen timestamptz, {ROW})",
            f"insert into users (id, name) select n, 'Name ' || n from generate_series(1, {rows}) as n",
            "vacuum (freeze, analyze) users",
            "checkpoint",
        )

    def ours(self, *, images: bool = True, undo: bool = False, **repair: Any) -> float:
        """Seconds of one backfill by mend, in a process of its own; its start-up is left out."""
        self.runs, self.last = self.runs + 1, repair
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix=f"run{self.runs}-"))
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        child = context.Process(target=_backfill, args=(there, self.url, str(folder), self.runs, images, undo, repair))
        child.start()
        there.close()
        try:
            return float(here.recv())
        finally:
            child.join()

    def fill(self, **more: Any) -> float:
        """Fill the users' e-mail addresses by mend."""
        seconds = self.ours(
            action="update", table="public.users", values={"email": FILL}, where="t.email is null", **more
        )
        assert self.count("select count(*) from users where email is null") == 0
        return seconds

    def undo(self) -> float:
        """Give back what the last run filled."""
        self.runs -= 1
        seconds = self.ours(undo=True, **self.last)
        assert self.count("select count(*) from users where email is not null") == 0
        return seconds

    def cpu_s(self) -> float:
        """Processor time of the server's processes so far, those that have ended included."""
        (kept,) = (self.folder / "pg").glob("data-*/postmaster.pid")
        postmaster, ticks = int(kept.read_text().split()[0]), 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if postmaster in (int(path.parent.name), int(fields[1])):
                ticks += sum(map(int, fields[11 : 15 if int(path.parent.name) == postmaster else 13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def one_update(self) -> float:
        started = time.monotonic()
        self.sql(UPDATE)
        return time.monotonic() - started

    def guide(self) -> tuple[float, float]:
        """The guide's loop: seconds, and the share that it had done when its time was over."""
        started, done = time.monotonic(), 0
        with psycopg.connect(self.url.replace("+psycopg", "")) as conn:
            while time.monotonic() - started < self.patience_s:
                rows = conn.execute(GUIDE.encode()).rowcount
                conn.commit()
                done += rows
                if not rows:
                    return time.monotonic() - started, 1.0
        return time.monotonic() - started, done / self.rows


def _backfill(pipe: Any, url: str, folder: str, number: int, images: bool, undo: bool, given: dict[str, Any]) -> None:
    """In a child: apply one repair through `execute`, as a runbook does."""
    os.environ["BENCH_URL"] = url
    os.environ["MEND_OUTPUTS"] = folder
    from mend.batches import batch, rows
    from mend.batches.repair import Repair
    from mend.change.kept import Keeper, primary_keys
    from mend.change.writer import Writer
    from mend.database import catalog, target
    from mend.execution import execute
    from mend.journal import Journal
    from mend.plan import Plan

    if given.pop("fast", False):
        os.environ["PGOPTIONS"] = "-c synchronous_commit=off"
    if most := given.pop("most", 0):
        from mend.batches import backfill

        backfill.Pace = functools.partial(backfill.Pace, most_rows=most)  # type: ignore[assignment, misc]
    if not images:

        def without(with_images: Callable[..., str]) -> Callable[..., str]:
            def text(*args: Any, **more: Any) -> str:
                made, kept = re.subn(r", mend_kept as \(\n.*?\n\)\n", "\n", with_images(*args, **more), flags=re.DOTALL)
                assert kept == 1, "the text of a batch is not what this benchmark knows"
                return made

            return text

        batch.change, batch.change_at_once = without(batch.change), without(batch.change_at_once)
    where = target.resolve("env:BENCH_URL")
    with where.reading() as conn:
        live = {(r.kind, r.identity): r.definition for r in catalog.snapshot(conn).itertuples()}
    journal = Journal(Path(folder) / "journal.jsonl")
    journal.append("run_opened")
    run_id = f"20260101T000000Z-bench-{number:05x}{int(undo)}"
    writer = Writer(where, where.identity(), run_id, journal, lambda line: None, 2000, 3_600_000)
    step = rows.step(
        Repair(f"job_{number}", **given), says="fill", live=live, keeper=Keeper("mend", "job", primary_keys(live))
    )
    plan = Plan("bench", {}, {"run": run_id}, "repair", steps=(step,))
    if undo:
        plan = plan.undone(frozenset({0}), evidence={"undoes": run_id})
    started = time.monotonic()
    (execute.undo if undo else execute.apply)(writer, plan)
    pipe.send(time.monotonic() - started)


@dataclass(frozen=True)
class Cost:
    """What a run took: seconds on the clock, and of processor time in the server, which other work on the machine changes less."""

    seconds: float
    cpu_s: float


def turns(bench: Bench, contestants: dict[str, tuple[Callable[[], object], Callable[[], float]]]) -> dict[str, Cost]:
    """Each in turn, ``bench.rounds`` times, prepared by the first of its two; the medians."""
    took: dict[str, list[Cost]] = {name: [] for name in contestants}
    for _ in range(bench.rounds):
        for name, (prepare, run) in contestants.items():
            prepare()
            before = bench.cpu_s()
            seconds = run()
            took[name].append(Cost(seconds, bench.cpu_s() - before))
            console.print(f"  {name}: {seconds:.2f} s, processor {took[name][-1].cpu_s:.2f} s", style="dim")
    return {
        name: Cost(statistics.median(c.seconds for c in costs), statistics.median(c.cpu_s for c in costs))
        for name, costs in took.items()
    }


def speed(bench: Bench) -> None:
    """A million rows: ours beside one UPDATE and the guide's loop; what before-images cost; the way back."""

    def fresh() -> None:
        bench.users(bench.rows)

    took = turns(
        bench,
        {
            "one UPDATE": (fresh, bench.one_update),
            "ctid, 1 worker": (fresh, bench.fill),
            "its undo": (lambda: None, bench.undo),
            "ctid, 2 workers": (fresh, lambda: bench.fill(workers=2)),
            "keyset, 1 worker": (fresh, lambda: bench.fill(by="keyset")),
            "keyset, 2 workers": (fresh, lambda: bench.fill(by="keyset", workers=2)),
            "ctid, 1 worker, no before-images": (fresh, lambda: bench.fill(images=False)),
        },
    )
    fresh()
    guide_s, share = bench.guide()
    base, bare = took["one UPDATE"], took["ctid, 1 worker, no before-images"]
    table = Table(
        "backfill",
        "median s",
        "rows/s",
        "server's CPU s",
        "beside one UPDATE",
        "beside the guide's loop",
        "goal",
        title=f"{bench.rows:,} rows, {bench.rounds} rounds",
    )
    loop = "the loop: 10x"
    goals = {"ctid, 1 worker": loop, "keyset, 1 worker": loop, "ctid, 2 workers": "one UPDATE: 1.0x"}
    for name, cost in took.items():
        faster = f"{'' if share == 1 else 'more than '}{guide_s / cost.seconds:.1f}x faster"
        table.add_row(
            name, f"{cost.seconds:.2f}", f"{bench.rows / cost.seconds:,.0f}", f"{cost.cpu_s:.1f}",
            f"{cost.seconds / base.seconds:.2f}x", "" if name == "its undo" else faster, goals.get(name, ""),
        )  # fmt: skip
    ended = f"{guide_s:.1f}" if share == 1 else f"not done in {guide_s:.0f} ({share:.0%})"
    table.add_row("the guide's ORDER BY .. LIMIT loop", ended, f"{share * bench.rows / guide_s:,.0f}", "", "", "", "")
    console.print(table)
    kept = took["ctid, 1 worker"]
    console.print(
        f"Before-images cost {kept.seconds / bare.seconds - 1:+.0%} on the clock, {kept.cpu_s / bare.cpu_s - 1:+.0%} of processor time; the goal is at most +50 %.\n"
    )


@contextmanager
def application(bench: Bench, rows: int) -> Iterator[Callable[[float, float], list[float]]]:
    """pgbench updates random rows at a steady rate; afterwards: the latencies (ms) of those under way between two times."""
    folder = Path(tempfile.mkdtemp(dir=bench.folder))
    script = folder / "application.sql"
    script.write_text(APPLICATION.format(rows=rows))
    with psycopg.connect(bench.url.replace("+psycopg", "")) as conn:
        host, port = conn.info.host, conn.info.port
    command = [
        str(find_binaries().bindir / "pgbench"), "-n", "-M", "prepared", "-f", str(script), "-R", str(RATE), "-c", str(CLIENTS), "-j", "1",
        "-T", "3600", "-l", "--log-prefix", str(folder / "log"), "-h", host, "-p", str(port), "-U", "postgres", "postgres",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def latencies(since: float, until: float) -> list[float]:
        found = []
        for path in folder.glob("log*"):
            for line in path.read_text().split("\n")[:-1]:  # the last line may be half written
                _, _, micros, _, second, micro, *_ = map(int, line.split())
                ended = second + micro / 1e6
                if ended > since and ended - micros / 1e6 < until:
                    found.append(micros / 1e3)
        return found

    try:
        time.sleep(2)  # its connections, its first plans
        yield latencies
    finally:
        process.terminate()
        process.wait()


def felt(bench: Bench, run: Callable[[], object]) -> tuple[list[float], float]:
    """Latencies of the application while something runs, sorted, and how long that took."""
    bench.users(bench.rows)
    with application(bench, bench.rows) as latencies:
        since = time.time()
        run()
        until = time.time()
        time.sleep(1.5)  # what waited is logged when it ends
    return sorted(latencies(since, until)), until - since


def latency(bench: Bench) -> None:
    """What an application feels: nothing running, ours, one UPDATE."""
    table = Table(
        "meanwhile",
        "s",
        "updates",
        "median ms",
        "p99 ms",
        "worst ms",
        "p99 beside idle",
        "goal",
        title=f"an application updating random rows of the same table, {RATE} a second on {CLIENTS} connections",
    )
    idle_p99 = 0.0
    goal = "p99 at most 3x, worst under 250 ms"
    contestants: list[tuple[str, Callable[[], object], str]] = [
        ("nothing", lambda: time.sleep(10), ""),
        ("ctid, 1 worker", lambda: bench.fill(), goal),
        ("ctid, 2 workers", lambda: bench.fill(workers=2), goal),
        ("keyset, 1 worker", lambda: bench.fill(by="keyset"), goal),
        ("one UPDATE", bench.one_update, ""),
    ]
    for name, run, wanted in contestants:
        seen, seconds = felt(bench, run)
        p99 = seen[int(0.99 * len(seen))]
        idle_p99 = idle_p99 or p99
        table.add_row(
            name,
            f"{seconds:.1f}",
            f"{len(seen):,}",
            f"{statistics.median(seen):.1f}",
            f"{p99:.1f}",
            f"{seen[-1]:.0f}",
            f"{p99 / idle_p99:.1f}x",
            wanted,
        )
        console.print(f"  {name}: p99 {p99:.1f} ms, worst {seen[-1]:.0f} ms", style="dim")
    console.print(table)


def linear(bench: Bench, sizes: list[int]) -> None:
    """Rows a second at different sizes."""
    table = Table(
        "rows",
        "median s",
        "rows/s",
        "beside the first",
        "rows per CPU s",
        "beside the first",
        "goal",
        title="one worker, ctid",
    )
    took = turns(bench, {f"{size:,}": (functools.partial(bench.users, size), bench.fill) for size in sizes})
    rates = [(size / cost.seconds, size / cost.cpu_s) for size, cost in zip(sizes, took.values(), strict=True)]
    for (name, cost), rate in zip(took.items(), rates, strict=True):
        beside = [f"{now / first - 1:+.0%}" for now, first in zip(rate, rates[0], strict=True)]
        table.add_row(
            name, f"{cost.seconds:.1f}", f"{rate[0]:,.0f}", beside[0], f"{rate[1]:,.0f}", beside[1], "within 25 %"
        )
    console.print(table)


ORPHAN = "t.user_id is not null and not exists (select from public.users as u where u.id = t.user_id)"


def orphans(bench: Bench, rows: int = 400_000) -> None:
    """Orders whose user is gone."""

    def fresh() -> None:
        bench.users(rows)
        bench.sql(
            f"create table orders (id int primary key, user_id int, {ROW})",
            f"insert into orders (id, user_id) select n, case when n % 20 = 0 then n + {rows} else n end from generate_series(1, {rows}) as n",
            "vacuum (freeze, analyze) orders",
            "checkpoint",
        )

    def not_in() -> str:
        try:
            started = time.monotonic()
            with psycopg.connect(bench.url.replace("+psycopg", "")) as conn:
                conn.execute(f"set statement_timeout = '{bench.patience_s:.0f}s'".encode())
                conn.execute(b"update orders set user_id = null where user_id not in (select id from users)")
            return f"{time.monotonic() - started:.1f} s"
        except psycopg.errors.QueryCanceled:
            return f"did not finish in {bench.patience_s:.0f} s"

    worklist = "select t.id as k1 from public.orders as t where " + ORPHAN
    ours: dict[str, Callable[[], float]] = {
        "set to NULL, by the condition": lambda: bench.ours(action="update", table="public.orders", values={"user_id": "null"}, where=ORPHAN),
        "set to NULL, by a worklist": lambda: bench.ours(action="update", table="public.orders", values={"user_id": "null"}, where=ORPHAN, work=worklist, match=("id",)),
        "deleted, by the condition": lambda: bench.ours(action="delete", table="public.orders", where=ORPHAN),
    }  # fmt: skip
    table = Table("orphans", "took", "goal", title=f"{rows // 20:,} orphans among {rows:,} orders, {rows:,} users")
    for name, run in ours.items():
        fresh()
        seconds = run()
        assert bench.count(f"select count(*) from orders as t where {ORPHAN}") == 0
        table.add_row(f"mend: {name}", f"{seconds:.2f} s", "about 1 s")
        console.print(f"  {name}: {seconds:.2f} s", style="dim")
    fresh()
    table.add_row("the guide: UPDATE .. NOT IN", not_in(), "")
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=120, help="seconds that the guide's recipes get")
    parser.add_argument("--big", action="store_true", help="linearity up to 10 million rows (needs about 10 GB)")
    parser.add_argument("--only", default="speed,latency,linear,orphans")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mend-bench-"))
    server = Server(folder / "pg", find_binaries(), settings=SETTINGS, detached=False)
    try:
        server.start()
        bench = Bench(folder, server, options)
        sizes = [options.rows, 3 * options.rows, *([10 * options.rows] if options.big else [])]
        parts: dict[str, Callable[[], None]] = {
            "speed": lambda: speed(bench),
            "latency": lambda: latency(bench),
            "linear": lambda: linear(bench, sizes),
            "orphans": lambda: orphans(bench),
        }
        for name in options.only.split(","):
            parts[name]()
    finally:
        server.destroy()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

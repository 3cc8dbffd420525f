"""What environment_mismatch costs: the expected catalog beside a plain upgrade, and a diff of large catalogs beside pg_dump.

Figures of one run only can be compared: both sides are run in turn, A B A B, and the ratio is of their medians.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas
import psycopg
import sqlalchemy
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))
from run import long_history

REVISIONS, TABLES, RUNS = 300, 10_000, 3


def seconds(act: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.monotonic()
    act()
    return time.monotonic() - started


def in_turn(a: Callable[[], object], b: Callable[[], object], runs: int) -> tuple[float, float]:
    """Medians of both, in turn, after one of each that does not count."""
    a(), b()
    both = [(seconds(a), seconds(b)) for _ in range(runs)]
    return statistics.median(x for x, _ in both), statistics.median(y for _, y in both)


def administrator(address: dict[str, str]) -> psycopg.Connection:
    """An autocommit session in the maintenance database."""
    return psycopg.connect(**address, autocommit=True)


def replays(folder: Path, address: dict[str, str], table: Table) -> None:
    """The expected catalog of a long history, beside `alembic upgrade heads` on the same empty database."""
    from mend import settings
    from mend.histories.project import Project
    from mend.replays import expected
    from mend.replays.scratch import Scratch

    url = f"postgresql+psycopg://{address['user']}@/bench?host={address['host']}&port={address['port']}"
    ini = long_history(folder / "long", url, REVISIONS)
    project, head = Project(ini, Path(sys.executable)), f"r{REVISIONS - 1:04d}"

    def empty() -> None:
        with administrator(address) as conn:
            conn.execute("drop database if exists bench with (force)")
            conn.execute("create database bench template template0")

    def build() -> None:
        shutil.rmtree(settings.home() / "cache", ignore_errors=True)
        made = expected.expected(project, [head], scratch=Scratch(0, address))
        assert (made.cached, len(made.steps), made.warnings[1:]) == (False, 2 * REVISIONS, ())

    def upgrade() -> None:
        subprocess.run(
            [sys.executable, "-m", "alembic", "-c", str(ini), "upgrade", "heads"], check=True, capture_output=True
        )

    empty()
    upgrade()
    build()
    pairs = []
    for _ in range(RUNS):
        empty()
        pairs.append((seconds(build), seconds(upgrade)))
    mine, plain = (statistics.median(side) for side in zip(*pairs, strict=True))
    again = statistics.median(
        seconds(lambda: expected.expected(project, [head], scratch=Scratch(0, address))) for _ in range(RUNS)
    )
    table.add_row(
        f"expected catalog of {REVISIONS} revisions, built, beside alembic upgrade heads",
        f"{mine:.2f}",
        f"{plain:.2f}",
        f"{mine / plain:.2f} x",
        "at most 1.5 x",
    )
    table.add_row("the same from the cache", f"{again:.2f}", "", "", "under 1 s")


MANY = """
do $$ begin
  for n in 1 .. {tables} loop
    execute format('create table t%s (id serial primary key, parent integer references t%s, name varchar(50) not null)', n, greatest(n - 1, 1));
    execute format('create index ix_t%s_name on t%s (name)', n, n);
    if n % 200 = 0 then commit; end if;
  end loop;
end $$
"""


def diffs(address: dict[str, str], pg_dump: str, table: Table) -> None:
    """Two catalogs of 10,000 tables that differ in ten places: mend, beside two warm pg_dump and a text diff."""
    from mend.database import catalog

    with administrator(address) as conn:
        for name in ("many", "more"):
            conn.execute(f"drop database if exists {name} with (force)".encode())
        conn.execute("create database many template template0")
    with administrator(address | {"dbname": "many"}) as conn:
        conn.execute(MANY.format(tables=TABLES).encode())
        conn.execute("vacuum analyze")
    with administrator(address) as conn:
        conn.execute("create database more template many")
    with administrator(address | {"dbname": "more"}) as conn:
        for n in range(5):
            conn.execute(f"drop index ix_t{n * 7 + 1}_name".encode())
            conn.execute(f"alter table t{n * 7 + 2} alter column name type varchar(60)".encode())
    engines = [
        sqlalchemy.create_engine(
            "postgresql+psycopg://", connect_args=address | {"dbname": name}, poolclass=sqlalchemy.NullPool
        )
        for name in ("many", "more")
    ]
    objects = 0

    def snapshot(engine: sqlalchemy.Engine) -> pandas.DataFrame:
        with engine.connect() as conn:
            return catalog.snapshot(conn)

    def mine() -> None:
        nonlocal objects
        with ThreadPoolExecutor(2) as beside:  # as the runbook reads two databases
            frames = list(beside.map(snapshot, engines))
        objects = len(frames[0])
        assert len(catalog.diff(*frames)) == 10

    def theirs() -> None:
        texts = []
        for name in ("many", "more"):
            done = subprocess.run(
                [pg_dump, "--schema-only", "-h", address["host"], "-p", address["port"], "-U", address["user"], name],
                check=True,
                capture_output=True,
                text=True,
            )
            texts.append(done.stdout.splitlines())
        lines = subprocess.run(
            ["diff", *(_kept(text) for text in texts)], capture_output=True, text=True, check=False
        ).stdout
        assert lines

    a, b = in_turn(mine, theirs, RUNS)
    table.add_row(
        f"diff of two catalogs, {TABLES:,} tables, {objects:,} facets, beside two pg_dump and diff",
        f"{a:.2f}",
        f"{b:.2f}",
        f"{b / a:.1f} x as fast",
        "under 6 s, 5 x",
    )


def _kept(lines: list[str]) -> str:
    """A file with these lines, for diff."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql", delete=False) as file:
        file.write("\n".join(line for line in lines if "restrict" not in line))
    return file.name


def main() -> None:
    """Measure and print one table."""
    from mend.postgres.server import Server, find_binaries
    from mend.replays.scratch import _clients

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"MEND_HOME": str(folder / "home")}
        server = Server(
            folder / "pg",
            find_binaries(),
            settings={"autovacuum": "off", "max_locks_per_transaction": "1024"},
            detached=False,
        )
        server.start()
        try:
            address = sqlalchemy.make_url(server.url())
            place = {
                "host": str(address.query["host"]),
                "port": str(address.query["port"]),
                "user": str(address.username),
                "dbname": "postgres",
            }
            table = Table("what", "mend, median s", "beside it, median s", "figure", "goal")
            replays(folder, place, table)
            diffs(place, _clients(server.binaries.major)[0], table)
            Console(width=150).print(table)
        finally:
            server.destroy()


if __name__ == "__main__":
    main()

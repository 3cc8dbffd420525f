"""make bench: how long mend takes, beside what it cannot be quicker than.

Whole processes, in turn A B A B, medians and the ratio or difference of the pairs.  Numbers of one run only can be compared.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

MEND = [sys.executable, "-m", "mend"]
EMPTY = {
    "cells": [],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}
REVISION = '''"""revision {n}"""
from alembic import op
import sqlalchemy as sa

revision = "r{n:04d}"
down_revision = {down}


def upgrade():
    op.create_table("t{n}", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(50)))
    op.create_index("ix_t{n}_name", "t{n}", ["name"])


def downgrade():
    op.drop_table("t{n}")
'''
ENV = """from alembic import context
from sqlalchemy import create_engine, pool

engine = create_engine(context.config.get_main_option("sqlalchemy.url"), poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""


def timed(command: list[str], *, ok: tuple[int, ...] = (0,)) -> float:
    """Seconds of one whole process; its exit code must be one of ``ok``."""
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode not in ok:
        sys.exit(f"{command}: exit {done.returncode}\n{done.stdout.decode()}{done.stderr.decode()}")
    return time.monotonic() - started


def pairs(a: Callable[[], float], b: Callable[[], float], runs: int = 5) -> tuple[list[float], list[float]]:
    """Both, in turn, after one of each that does not count."""
    a(), b()
    both = [(a(), b()) for _ in range(runs)]
    return [one for one, _ in both], [other for _, other in both]


def long_history(folder: Path, url: str, revisions: int) -> Path:
    """An Alembic project with that many revisions, each a table and an index."""
    versions = folder / "migrations" / "versions"
    versions.mkdir(parents=True)
    (folder / "migrations" / "env.py").write_text(ENV)
    for n in range(revisions):
        (versions / f"r{n:04d}.py").write_text(REVISION.format(n=n, down=repr(f"r{n - 1:04d}") if n else None))
    ini = folder / "alembic.ini"
    ini.write_text(f"[alembic]\nscript_location = %(here)s/migrations\nsqlalchemy.url = {url.replace('%', '%%')}\n")
    return ini


def replay_seconds(ini: Path, revision: str) -> float:
    """One replay in a process of its own; the cache decides whether it is the first."""
    code = (
        "import sys; from pathlib import Path; from mend.replays import replay; from mend.histories.project import Project; from mend.replays.scratch import Scratch\n"
        "made = replay.replay(Project(Path(sys.argv[1]), Path(sys.executable)), sys.argv[2], scratch=Scratch(18)); assert made.statements"
    )
    return timed([sys.executable, "-c", code, str(ini), revision])


def main() -> None:
    """Measure and print one table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"MEND_HOME": str(folder / "home"), "MEND_OUTPUTS": str(folder / "outputs")}
        table = Table("what", "mend, median s", "beside it, median s", "figure", "goal")

        def row(what: str, mine: list[float], other: list[float] | None, goal: str, figure: str = "") -> None:
            beside = f"{statistics.median(other):.2f}" if other else ""
            difference = (
                f"{statistics.median(x - y for x, y in zip(mine, other, strict=True)):+.2f} s" if other else figure
            )
            table.add_row(what, f"{statistics.median(mine):.2f}", beside, difference, goal)

        started = json.loads(
            subprocess.run(
                [*MEND, "lab", "start", "failed_migration", "--json"], capture_output=True, check=True
            ).stdout
        )
        empty = folder / "empty.ipynb"
        empty.write_text(json.dumps(EMPTY))
        papermill = [sys.executable, "-m", "papermill", str(empty), str(folder / "out.ipynb")]
        error = ["--error", 'column "x" of relation "t" already exists']
        try:
            row(
                "mend --help, beside python -c pass",
                *pairs(lambda: timed([*MEND, "--help"]), lambda: timed([sys.executable, "-c", "pass"])),
                "0.3 s",
            )
            row("triage, text only", [timed([*MEND, "triage", *error], ok=(2,)) for _ in range(5)], None, "under 1 s")
            row(
                "triage, lab and text",
                [
                    timed([*MEND, "triage", "-t", "lab", "--error-file", started["error_file"]], ok=(2,))
                    for _ in range(5)
                ],
                None,
                "under 3 s",
            )
            plan = [*MEND, "plan", "failed_migration"]
            row(
                "plan, beside plain papermill with an empty notebook",
                *pairs(lambda: timed(plan, ok=(2,)), lambda: timed(papermill)),
                "at most +2 s",
            )
            ini = long_history(folder / "long", "postgresql+psycopg://nobody@127.0.0.1:1/none", 100)
            first, again = replay_seconds(ini, "r0099"), replay_seconds(ini, "r0099")
            row("replay of 100 revisions, first, beside cached", [first], [again], "under 15 s")
        finally:
            subprocess.run([*MEND, "lab", "stop"], capture_output=True, check=False)
        Console().print(table)


if __name__ == "__main__":
    main()

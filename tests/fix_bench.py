"""A bench for repairs of rows: one database, and runs of plans on it without a runbook around them.

bench       bench.step(Repair(...)), bench.apply(step), bench.undo(step), bench.resume(step); bench.look reads and writes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fix_runs import Look
from mend.batches import rows
from mend.batches.rows import Repair
from mend.change.kept import Keeper, primary_keys
from mend.change.writer import Writer
from mend.database import target
from mend.execution import execute, resolve
from mend.journal import Journal
from mend.plan import Plan, Step

JOB = "job_0"
KEEPER = "job"


@dataclass
class Bench:
    """Runs plans of rows on one database; ``told`` is what they said."""

    url: str
    directory: Path
    told: list[str] = field(default_factory=list)
    runs: int = 0

    @property
    def look(self) -> Look:
        return Look(self.url)

    def writer(self, **more: Any) -> Writer:
        """The next run."""
        self.runs += 1
        where = target.resolve("env:BENCH_URL")
        folder = self.directory / f"run{self.runs}"
        folder.mkdir(parents=True)
        journal = Journal(folder / "journal.jsonl")
        journal.append("run_opened")
        limits = {"lock_timeout_ms": 200, "statement_timeout_ms": 60_000} | more
        return Writer(
            where, where.identity(), f"20260101T000000Z-bench-{self.runs:06x}", journal, self.told.append, **limits
        )

    def live(self) -> dict[tuple[str, str], str]:
        return self.look.catalog()

    def keeper(self) -> Keeper:
        return Keeper("mend", KEEPER, primary_keys(self.live()))

    def step(self, table: str, action: Any, values: Mapping[str, str] | None = None, **more: Any) -> Step:
        """A repair of that table as a step."""
        return self.stepped(Repair(more.pop("job", JOB), table, action, values or {}, **more))

    def stepped(self, repair: Repair) -> Step:
        return rows.step(repair, says="repair rows", live=self.live(), keeper=self.keeper())

    def apply(self, *steps: Step) -> Writer:
        writer = self.writer()
        execute.apply(writer, Plan("bench", {}, {"run": writer.run_id}, "repair", steps=steps))
        return writer

    def resume(self, *steps: Step) -> Writer:
        """Go on with these steps, each from where the database says it stands."""
        writer = self.writer()
        resolve.await_survivors(writer.target, "mend:")
        found = {n: resolve.by_checkpoints(writer.target, step) for n, step in enumerate(steps)}
        execute.resume(writer, Plan("bench", {}, {"run": writer.run_id}, "repair", steps=steps), found)
        return writer

    def undo(self, *steps: Step) -> Writer:
        writer = self.writer()
        plan = Plan("bench", {}, {}, "repair", steps=steps)
        execute.undo(writer, plan.undone(frozenset(range(len(steps))), evidence={"undoes": writer.run_id}))
        return writer

    def state(self, step: Step) -> str:
        """What `resolve` says of it."""
        return resolve.by_checkpoints(target.resolve("env:BENCH_URL"), step).state

    def images(self, columns: str, job: str = JOB) -> list[tuple[Any, ...]]:
        return self.look.query(f"select {columns} from mend.image_{job}")

    def aside(self, columns: str, job: str = JOB) -> list[tuple[Any, ...]]:
        return self.look.query(f"select {columns} from mend.quarantine_{job} order by 1")

    def restored(self, writer: Writer) -> dict[str, Any]:
        """What a run's journal says of what went back."""
        return writer.journal.of("restored")[0].payload


@pytest.fixture
def bench(database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    """An empty database."""
    monkeypatch.setenv("BENCH_URL", database)
    return Bench(database, tmp_path / "bench")

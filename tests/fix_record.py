"""Records without a database: a folder of small runbooks, and runs with something in every file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mend.database import parameters
from mend.plan import Choice, Lock, Plan, Statement, Step
from mend.record import archive

SLUG = "small"
CLOSES = "import os\nfrom mend.record.archive import Record\nfrom pathlib import Path\nRecord(Path(os.environ['MEND_RUN'])).journal.append('run_closed', {'outcome': 'completed'})"

Runbook = Callable[..., Path]


def cell(source: str, *, name: str, tags: tuple[str, ...] = ()) -> dict[str, Any]:
    """A code cell that has not run."""
    metadata = {"tags": list(tags)} if tags else {}
    return {
        "cell_type": "code",
        "id": name,
        "metadata": metadata,
        "execution_count": None,
        "outputs": [],
        "source": source,
    }


def notebook(*sources: str) -> dict[str, Any]:
    """A notebook with a parameters cell, a heading, and these code cells, named a, b, c, ..."""
    head = [
        {"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# A small runbook\n\n> it hurts"},
        cell('target: str = "lab"  # where\nrevision: str = ""  # which', name="parameters", tags=("parameters",)),
        {"cell_type": "markdown", "id": "diagnose", "metadata": {}, "source": "## Diagnose"},
    ]
    cells = [cell(source, name=name) for name, source in zip("abcdefgh", sources, strict=False)]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return {"cells": head + cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture
def runbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runbook:
    """``runbook("1 + 1")`` makes the runbook `small` of these cells; it closes its run unless ``closes=False``."""
    folder = tmp_path / "runbooks"
    folder.mkdir()
    monkeypatch.setattr(parameters, "folder", lambda: folder)

    def make(*sources: str, closes: bool = True) -> Path:
        path = folder / f"{SLUG}.ipynb"
        path.write_text(json.dumps(notebook(*sources, *([CLOSES] if closes else []))))
        return path

    return make


@pytest.fixture
def record(runbook: Runbook) -> archive.Record:
    """A run that was opened and nothing else."""
    runbook()
    return archive.create(SLUG, action="plan", parameters={"target": "lab"}, incident="INC-1")


def a_plan(*, database: str = "shop", sql: str = "drop index concurrently public.ix") -> Plan:
    """A plan of two steps; the second cannot be taken back."""
    first = Step(
        "Drop the invalid index",
        (Statement(sql),),
        transactional=False,
        locks=(Lock("public.orders", "SHARE UPDATE EXCLUSIVE"),),
        undo=(Step("Build it again", (Statement("create index ix on public.orders (id)"),)),),
    )
    second = Step(
        "Record the revision",
        (Statement("update alembic_version set version_num = 'b'", exactly=1),),
        rows_expected=1,
        irreversible="the old row is gone",
    )
    options = (
        Choice("resume", "Run what is missing.", "Little."),
        Choice("stamp", "Record it.", "", possible=False, why_not="2 are missing."),
    )
    return Plan(
        SLUG,
        {"database": database},
        {"rows": ["a"]},
        "resume",
        options,
        (first, second),
        "alembic upgrade head",
        ("a warning",),
    )


@pytest.fixture
def ended(record: archive.Record) -> archive.Record:
    """A run with a journal, a plan and a notebook, closed as planned and sealed."""
    fill(record)
    archive.seal(record)
    return record


def fill(record: archive.Record) -> None:
    """Let a run say something and end as planned."""
    plan = a_plan()
    record.journal.append(
        "target_seen",
        {"name": "lab", "database": "shop", "server_version": "18.1", "role": "ann", "system_identifier": "77"},
    )
    record.journal.append("check", {
        "name": "leftovers", "question": "What is left?", "verdict": "found", "says": "1 index is left.", "why": "", "healthy_when": "nothing",
        "rows": 1, "columns": ["identity"], "sample": [{"identity": "public.ix"}], "sql": "select 1", "seconds": 0.1,
    })  # fmt: skip
    record.write_plan(plan)
    record.journal.append("planned", {"digest": plan.digest(), "chosen": "resume", "steps": 2})
    record.journal.append("run_closed", {"outcome": "planned"})
    record.save("notebook.ipynb", json.dumps(notebook("1 + 1")))

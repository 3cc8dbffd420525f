"""Which runs belong to one plan: the run that applied it, those that carried it on after a crash, and the one that undid it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pandas as pd

from mend import archive
from mend.archive import Record
from mend.errors import RecordDamaged, Refused
from mend.journal import Event
from mend.plan import Plan

BEFORE = "catalog-before.json"
_COLUMNS = ["kind", "identity", "definition"]


@dataclass(frozen=True)
class Applied:
    """A plan that was applied, wholly or in part, and by which runs: the first one, then its resumes."""

    runs: tuple[Record, ...]
    plan: Plan

    @property
    def run_id(self) -> str:
        """The run that applied the plan first."""
        return self.runs[0].run_id

    @property
    def events(self) -> list[Event]:
        """The events of all of its runs, in order."""
        return [event for record in self.runs for event in record.journal.events()]

    @property
    def before(self) -> pd.DataFrame:
        """The catalog before the first step: kind, identity, definition (str)."""
        return read_snapshot(self.runs[0])


def applied(run_id: str) -> Applied:
    """The application of a plan that any of its runs belongs to.

    Raises: RunNotFound; Refused where nothing was applied, or it was undone already.
    """
    record = archive.find(run_id)
    first = _first(record)
    if first is None:
        raise Refused(f"Run {record.run_id} applied nothing. Nothing was changed. `mend runs` tells which runs did.")
    plan = first.plan()
    if plan is None:
        raise RecordDamaged(f"Run {first.run_id} has no plan.json. Nothing was changed.")
    found = Applied((first, *_resumes(first)), plan)
    for record in found.runs:
        if undone := [child.run_id for child in archive.children(record.run_id) if child.opened.get("action") == "undo" and _finished(child)]:
            raise Refused(f"Run {record.run_id} was undone by {undone[0]}. Nothing was changed.")
    return found


def _first(record: Record) -> Record | None:
    """The run that sent the plan's first step: this one, the one it resumes, or the one made from this plan."""
    if record.opened.get("action") in ("resume", "undo") and record.opened.get("of"):
        return _first(archive.find(record.opened["of"]))
    if record.journal.of("apply_started"):
        return record
    return next((c for c in archive.children(record.run_id) if c.opened.get("action") == "apply" and c.journal.of("apply_started")), None)


def _resumes(first: Record) -> list[Record]:
    """The resumes of a run, and the resumes of those, oldest first."""
    direct = [c for c in reversed(archive.children(first.run_id)) if c.opened.get("action") == "resume" and c.journal.of("apply_started")]
    return [record for child in direct for record in (child, *_resumes(child))]


def _finished(record: Record) -> bool:
    return bool(record.journal.of("applied"))


def approved_plan(digest: str) -> Plan | None:
    """The plan of that digest among the records, for telling what changed since; None where there is none."""
    for record in archive.runs():
        if digest and any(event.payload.get("digest") == digest for event in record.journal.of("planned")):
            return record.plan()
    return None


def write_snapshot(record: Record, snapshot: pd.DataFrame) -> None:
    """Keep the catalog as it was before the first step."""
    record.save(BEFORE, json.dumps(snapshot[_COLUMNS].to_numpy().tolist(), ensure_ascii=False, indent=0) + "\n")


def read_snapshot(record: Record) -> pd.DataFrame:
    """The catalog that ``write_snapshot`` kept.  Raises: RecordDamaged if it is gone."""
    try:
        return pd.DataFrame(json.loads((record.path / BEFORE).read_text(encoding="utf-8")), columns=_COLUMNS, dtype=str)
    except (OSError, ValueError) as error:
        raise RecordDamaged(f"{record.path / BEFORE} cannot be read: {error}. What the run changed cannot be compared.") from error

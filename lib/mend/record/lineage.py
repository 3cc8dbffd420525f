"""Which runs belong to one plan: the run that applied it, those that carried it on after a crash, and the one that undid it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pandas as pd

from mend.errors import RecordDamaged, Refused
from mend.journal import Event
from mend.plan import Plan
from mend.record import archive, integrity
from mend.record.archive import Record

BEFORE, AFTER = "catalog-before.json", "catalog-after.json"
_TOLD = ("planned", "apply_started")  # the events that name a plan's digest
_COLUMNS = ["kind", "identity", "definition"]


@dataclass(frozen=True)
class Applied:
    """A plan that was applied, wholly or in part, and by which runs: the first one, then its resumes.

    An undo is such a plan too; ``undoes`` is then the one that it takes back.
    """

    runs: tuple[Record, ...]
    plan: Plan
    undoes: Applied | None = None

    @property
    def run_id(self) -> str:
        """The run that applied the plan first."""
        return self.runs[0].run_id

    @property
    def events(self) -> list[Event]:
        """The events of all of its runs, in order."""
        return [event for record in self.runs for event in record.journal.events()]

    @property
    def finished(self) -> bool:
        """Whether the last step ran."""
        return any(record.journal.of("applied") for record in self.runs)

    @property
    def before(self) -> pd.DataFrame:
        """The catalog before the first step: kind, identity, definition (str)."""
        return _read_snapshot(self.runs[0], BEFORE)

    @property
    def after(self) -> pd.DataFrame | None:
        """The catalog after the last step; None where the plan never came to it."""
        ended = next((record for record in self.runs if (record.path / AFTER).exists()), None)
        return _read_snapshot(ended, AFTER) if ended else None


def to_undo(run_id: str) -> Applied:
    """The application of a plan that this run belongs to, if there is anything to take back.

    Raises: RunNotFound; Refused where nothing was applied, or it was undone already, or the run is itself an undo.
    """
    found = _application(archive.find(run_id))
    if found.undoes:
        raise Refused(
            f"Run {run_id} is itself an undo, of {found.undoes.run_id}. Nothing was changed. Make a new plan to go forward again."
        )
    return _not_undone(found)


def to_resume(run_id: str) -> Applied:
    """The application of a plan, or the undo of one, that this run belongs to.

    Raises: RunNotFound; Refused where nothing was applied, or it was undone already.
    """
    found = _application(archive.find(run_id))
    return found if found.undoes else _not_undone(found)


def undos(applied: Applied) -> list[Applied]:
    """Every attempt to take a plan back, oldest first."""
    tried = [
        c
        for record in applied.runs
        for c in reversed(archive.children(record.run_id))
        if c.opened.get("action") == "undo" and c.journal.of("apply_started")
    ]
    return [_application(record) for record in tried]


def _not_undone(found: Applied) -> Applied:
    if undone := [attempt.run_id for attempt in undos(found) if attempt.finished]:
        raise Refused(f"Run {found.run_id} was undone by {undone[0]}. Nothing was changed.")
    return found


def _application(record: Record) -> Applied:
    first = _first(record)
    if first is None:
        raise Refused(f"Run {record.run_id} applied nothing. Nothing was changed. `mend runs` tells which runs did.")
    plan = first.plan()
    if plan is None:
        raise RecordDamaged(f"Run {first.run_id} has no plan.json. Nothing was changed.")
    runs = (first, *_resumes(first))
    for run in runs:
        _require_sound(run)
    _require_applied(first, plan)
    opened = first.opened
    undoes = _application(archive.find(opened["of"])) if opened.get("action") == "undo" else None
    return Applied(runs, plan, undoes)


def _require_sound(record: Record) -> None:
    """What a record says is acted upon only where it is as mend left it; a run that died before it was sealed is."""
    verdict = archive.verify(record)
    if verdict.state not in ("whole", "unfinished") and not integrity.went_on(record.path):
        raise RecordDamaged(
            f"The record of run {record.run_id} is {verdict.state}: {verdict.why}. Nothing was changed. Put the record back as it was, "
            "or make a new plan: it reads the database itself.",
            verdict=verdict.state,
        )


def _require_applied(first: Record, plan: Plan) -> None:
    """The plan that lies in the record must be the one that was planned and sent, by the journal, whose events hold one another."""
    said = {kind: [str(event.payload.get("digest")) for event in first.journal.of(kind)] for kind in _TOLD}
    if any(digests and plan.digest() != digests[-1] for digests in said.values()):
        raise RecordDamaged(
            f"{first.path / integrity.PLAN} is not the plan that run {first.run_id} applied: its digest is {plan.digest()}, the journal says "
            f"{', '.join(sorted({d for digests in said.values() for d in digests}))}. Nothing was changed. Put plan.json back as it was.",
            verdict="edited",
        )


def _first(record: Record) -> Record | None:
    """The run that sent the plan's first step: this one, the one it resumes, or the one made from this plan."""
    if record.opened.get("action") == "resume" and record.opened.get("of"):
        return _first(archive.find(record.opened["of"]))
    if record.journal.of("apply_started"):
        return record
    return next(
        (
            c
            for c in archive.children(record.run_id)
            if c.opened.get("action") == "apply" and c.journal.of("apply_started")
        ),
        None,
    )


def _resumes(first: Record) -> list[Record]:
    """The resumes of a run, and the resumes of those, oldest first."""
    direct = [
        c
        for c in reversed(archive.children(first.run_id))
        if c.opened.get("action") == "resume" and c.journal.of("apply_started")
    ]
    return [record for child in direct for record in (child, *_resumes(child))]


def approved_plan(digest: str) -> Plan | None:
    """The plan of that digest among the records, for telling what changed since; None where there is none."""
    for record in archive.runs():
        if digest and any(event.payload.get("digest") == digest for event in record.journal.of("planned")):
            return record.plan()
    return None


def write_snapshot(record: Record, name: str, snapshot: pd.DataFrame) -> None:
    """Keep the catalog as it was ``BEFORE`` the first step, or ``AFTER`` the last."""
    record.save(name, json.dumps(snapshot[_COLUMNS].to_numpy().tolist(), ensure_ascii=False, indent=0) + "\n")


def _read_snapshot(record: Record, name: str) -> pd.DataFrame:
    """The catalog that ``write_snapshot`` kept.  Raises: RecordDamaged if it is gone."""
    try:
        return pd.DataFrame(json.loads((record.path / name).read_text(encoding="utf-8")), columns=_COLUMNS, dtype=str)
    except (OSError, ValueError) as error:
        raise RecordDamaged(
            f"{record.path / name} cannot be read: {error}. What the run changed cannot be compared."
        ) from error

"""What ``mend runs``, ``show`` and ``verify`` print of the records in outputs/."""

from __future__ import annotations

from typing import Any

from mend import settings
from mend.command import screen
from mend.errors import MendError, RecordDamaged
from mend.plan import Plan
from mend.record import archive
from mend.record.archive import Record


def runs(incident: str, *, json: bool) -> int:
    """Every run, newest first; a damaged one is listed as such."""
    entries = [_entry(record) for record in archive.runs(incident)]
    if json:
        screen.document({"runs": entries})
    elif entries:
        names = ("run_id", "action", "outcome", "target", "incident")
        screen.table(names, [[entry[name] for name in names] for entry in entries])
    else:
        screen.say(f"no runs in {settings.outputs()}")
    return 0


def _entry(record: Record) -> dict[str, Any]:
    try:
        opened = record.opened
        return {
            "run_id": record.run_id, "slug": opened["slug"], "action": opened["action"], "of": opened["of"], "outcome": record.outcome,
            "target": opened["parameters"].get("target", ""), "incident": opened["incident"], "record": str(record.path),
        }  # fmt: skip
    except (RecordDamaged, KeyError):
        return dict.fromkeys(("slug", "action", "of", "target", "incident"), "") | {
            "run_id": record.run_id,
            "outcome": "damaged",
            "record": str(record.path),
        }


def show(run_id: str, *, json: bool) -> int:
    """One run."""
    record = archive.find(run_id)
    if json:
        screen.document(document(record))
    else:
        tell(record)
    return 0


def document(record: Record) -> dict[str, Any]:
    """The document of DESIGN 6, and where the report is."""
    report = record.path / "report.html"
    return archive.document(record) | {"report": str(report) if report.exists() else ""}


def tell(record: Record, *, brief: bool = False, watched: bool = False) -> None:
    """What was asked and answered, the operations, the plan with its SQL, the outcome, the next command.

    ``brief`` leaves out all but the last two; ``watched`` what the progress has just said on the same screen.
    """
    said = archive.document(record)
    screen.out(
        f"run {said['run_id']}: {said['action']} {said['slug']}, {said['outcome']}"
        + (f". {said['says']}" if said["says"] else "")
    )
    plan = record.plan()
    if not brief:
        _tell_diagnosis(said | ({"checks": []} if watched else {}), plan)
    screen.out(f"record {record.path}")
    if said["outcome"] == "planned" and plan and plan.steps:
        screen.out("next   " + screen.command(f"mend apply {record.run_id} --approve {plan.digest()}"))
    elif said["action"] in ("apply", "resume") and (
        (said["outcome"] == "completed" and _comes_back(plan))
        or (said["outcome"] == "failed" and _stands(record, plan))
    ):
        screen.out("back   " + screen.command(f"mend undo {record.run_id}"))


def _stands(record: Record, plan: Plan | None) -> bool:
    """Whether a run that failed has left anything that its undo takes back, e.g. autovacuum that is off."""
    done = {int(event.payload["step"]) for event in record.journal.of("step_done")}
    return plan is not None and any(bool(step.undo) for n, step in enumerate(plan.steps) if n in done)


def _comes_back(plan: Plan | None) -> bool:
    """Whether anything of a plan could be taken back."""
    return plan is None or any(step.reversible() for step in plan.steps)


def _tell_diagnosis(said: dict[str, Any], plan: Plan | None) -> None:
    from mend.record import show as fragments

    for check in said["checks"]:
        answer = check["why"] if check["verdict"] == "could_not_check" else check["says"]
        screen.out(f"{check['verdict']:>15}  {check['question']} {answer}")
    if said.get("operations"):
        screen.out("\n" + fragments.operations(said["operations"]).text)
    if plan:
        screen.out("\n" + fragments.plan(plan).text.rstrip() + "\n")


def verify(run_id: str, *, every: bool, with_target: bool, json: bool) -> int:
    """0 if every record asked for is whole."""
    records = [archive.find(run_id)] if run_id and not every else archive.runs()
    verdicts = [_verdict(record, with_target=with_target) for record in records]
    if json:
        screen.document({"runs": verdicts})
    else:
        for verdict in verdicts:
            screen.out(f"{verdict['run_id']}  {verdict['state']}" + (f"  {verdict['why']}" if verdict["why"] else ""))
        screen.say(
            f"{len(verdicts)} records in {settings.outputs()}, {sum(v['state'] == 'whole' for v in verdicts)} whole"
        )
    return int(any(verdict["state"] != "whole" for verdict in verdicts))


def _verdict(record: Record, *, with_target: bool) -> dict[str, str]:
    found = archive.verify(record)
    if with_target and found.state == "whole" and record.journal.of("apply_started"):
        from mend.database import target

        try:
            named = target.resolve(record.opened["parameters"]["target"])
            with named.reading(record.run_id) as conn:
                found = archive.verify_against_target(record, conn, schema=named.settings.schema_name)
        except MendError as error:
            return {"run_id": record.run_id, "state": "could_not_check", "why": error.message}
    return {"run_id": found.run_id, "state": found.state, "why": found.why}

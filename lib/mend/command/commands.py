"""What ``mend triage``, ``plan``, ``apply``, ``undo``, ``resume`` and ``open`` do: check the input, run, seal, tell."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mend.command import screen
from mend.database import parameters
from mend.errors import InvalidParameter, MendError, NotApproved, ProjectBroken, RecordDamaged, Refused
from mend.journal import now

if TYPE_CHECKING:
    from mend.database.target import Target
    from mend.record.archive import Record
    from mend.symptoms.triage import Answer

    Ended = tuple[Record, MendError | None]

_FOUND = 2  # also of an undo that is complete, and left rows that somebody had changed as they are
EXIT_CODES = {
    "completed": 0,
    "planned": 2,
    "refused": 3,
    "unknown": 4,
    "interrupted": 4,
    "failed": 1,
    "could_not_check": 1,
}
_NOTHING = {  # by whether there was a text, and whether a database was looked at
    (True, True): "Unknown: the text is of no failure mode that mend knows, and the database shows none.",
    (
        True,
        False,
    ): "Unknown: the text is of no failure mode that mend knows. Give -t TARGET to look at the database too.",
    (False, True): "Nothing found: the database shows no failure mode that mend can see at a glance.",
    (
        False,
        False,
    ): "Nothing found: the revision files show no failure mode. Give -t TARGET to look at the database too.",
}
Pairs = Sequence[tuple[str, str]]
Action = Literal["plan", "apply", "undo", "resume"]


def catalogue(*, json: bool) -> int:
    """The failure modes that have a runbook, and those that triage names already."""
    from mend.symptoms.signatures import MODES, SIGNATURES

    states = {slug: sorted({s.sqlstate for s in SIGNATURES if s.slug == slug and s.sqlstate}) for slug in MODES}
    there = parameters.slugs()
    entries = [{"slug": slug, "symptom": parameters.symptom(slug), "sqlstates": states.get(slug, [])} for slug in there]
    later = [slug for slug in MODES if slug not in there]
    if json:
        screen.document({"runbooks": entries, "triage_only": later})
        return 0
    for entry in entries:
        screen.out(f"{entry['slug']}\n    {entry['symptom']}\n    SQLSTATE {', '.join(entry['sqlstates'])}")
    if later:
        screen.out(f"No runbook yet, but triage names them: {', '.join(later)}")
    return 0


def triage(target_name: str, alembic_ini: Path | None, *, text: str, file: str, json: bool) -> int:
    """Findings, best first.  2: there are some; 0: a database shows none; 1: unknown, or something could not be checked."""
    from mend.symptoms import triage as room

    error = room.error_text(text, file)
    if not (error.strip() or target_name or alembic_ini):
        raise InvalidParameter(
            "Nothing to look at. Nothing was changed. Give an error text (--error, --error-file FILE or -), a target (-t), or both."
        )
    target = _resolved(target_name) if target_name else None
    ini = _absolute(alembic_ini) if alembic_ini else room.default_ini(target) if target else None
    answer = room.examine(error, target, ini)
    if json:
        screen.document(
            {"findings": [f.as_record() for f in answer.findings], "could_not_check": list(answer.could_not_check)}
        )
    else:
        _tell_findings(answer, text=bool(error.strip()), looked=target is not None)
    return 2 if answer.findings else int(bool(error.strip() or answer.could_not_check))


def _tell_findings(answer: Answer, *, text: bool, looked: bool) -> None:
    for number, finding in enumerate(answer.findings, 1):
        screen.out(f"{number}. {finding.slug}  ({finding.confidence:.0%})")
        for line in finding.evidence:
            screen.out(f"   - {line}")
        screen.out(f"   next: {screen.command(finding.command)}")
    if not answer.findings:
        screen.out(_NOTHING[text, looked])
    for note in answer.could_not_check:
        screen.complain(note)


def given(slug: str, options: Mapping[str, Any], pairs: Pairs, file: Path | None) -> dict[str, Any]:
    """Every parameter of a runbook, from a YAML file, then ``-p``, then the options; paths are made absolute.

    Raises: InvalidParameter, ProjectBroken, TargetUnknown, before anything runs.
    """
    if slug not in parameters.slugs():
        parameters.notebook(slug if slug not in parameters.NOT_MODES else f"{slug} (no failure mode)")
    values = _from_yaml(file) if file else {}
    values |= parameters.from_text(slug, dict(pairs))
    values |= {key: str(value) for key, value in options.items() if value}
    checked = parameters.validated(slug, values)
    for path in ("alembic_ini", "python"):
        if checked.get(path):
            checked[path] = str(_absolute(Path(checked[path])))
    if checked["alembic_ini"] and not Path(checked["alembic_ini"]).is_file():
        raise ProjectBroken(
            f"There is no {checked['alembic_ini']}. Nothing was changed. Give the path of the project's alembic.ini with -a."
        )
    return checked


def _from_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidParameter(
            f"{path} cannot be read: {' '.join(str(error).split())}. Nothing was changed. Write one `name: value` a line."
        ) from error
    if not (isinstance(values, dict) and all(isinstance(key, str) for key in values)):
        raise InvalidParameter(f"{path} is not a list of `name: value`. Nothing was changed. Correct it and run again.")
    return values


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 resolve() would follow the link that a venv's python is


def _resolved(name: str) -> Target:
    from mend.database import target

    return target.resolve(name)


def plan(slug: str, values: Mapping[str, Any], *, json: bool) -> int:
    """Diagnose and plan."""
    if not values["dry_run"] or values["approve"]:
        raise InvalidParameter(
            f"`mend plan` changes nothing, so dry_run and approve are not for it. Nothing was changed. Use `mend apply {slug}`."
        )
    return told(*run(slug, values, action="plan"), json=json)


def apply(
    what: str, options: Mapping[str, Any], pairs: Pairs, file: Path | None, *, approve: str, auto: bool, json: bool
) -> int:
    """Apply the plan of a run; or plan a slug, and apply that plan if it is approved."""
    from mend.record import archive

    if what not in parameters.slugs():
        if any(options.values()) or pairs or file:
            raise InvalidParameter(
                "A run is applied with its own parameters. Nothing was changed. Give no others, or make a new plan."
            )
        return _apply_run(archive.find(what), approve=approve, auto=auto, json=json)
    values = given(what, options, pairs, file) | {"dry_run": True, "approve": ""}
    if approve:
        return told(*run(what, values | {"dry_run": False, "approve": approve}, action="apply"), json=json)
    planned, error = run(what, values, action="plan")
    made = planned.plan() if planned.outcome == "planned" and error is None else None
    if made is None or not made.steps:
        return told(planned, error, json=json)
    if not auto:
        told(planned, None, json=json)
        raise NotApproved(_not_approved(planned.run_id, made.digest()))
    return _apply_run(planned, approve=made.digest(), auto=True, json=json)


def _apply_run(planned: Record, *, approve: str, auto: bool, json: bool) -> int:
    made = planned.plan()
    if made is None or not made.steps:
        raise InvalidParameter(
            f"Run {planned.run_id} has no plan with steps. Nothing was changed. `mend show {planned.run_id}` says why."
        )
    digest = approve or (made.digest() if auto else "")
    if digest != made.digest():
        wrong = f" The digest given, {approve}, is of another plan." if approve else ""
        raise NotApproved(_not_approved(planned.run_id, made.digest()) + wrong)
    opened = planned.opened
    values = parameters.validated(opened["slug"], opened["parameters"]) | {"dry_run": False, "approve": digest}
    return told(*run(opened["slug"], values, action="apply", of=planned.run_id), json=json)


def _not_approved(run_id: str, digest: str) -> str:
    return f"The plan of run {run_id} is not approved. Nothing was changed. Review it, then: {screen.command(f'mend apply {run_id} --approve {digest}')}"


def follow(run_id: str, action: Literal["undo", "resume"], *, json: bool) -> int:
    """Undo or resume a run that applied a plan."""
    from mend.record import archive, lineage

    record = archive.find(run_id)
    (lineage.to_undo if action == "undo" else lineage.to_resume)(
        record.run_id
    )  # refuses at once what was never applied, or is undone already
    slug = record.opened["slug"]
    return told(
        *run(slug, parameters.validated(slug, record.opened["parameters"]), action=action, of=record.run_id), json=json
    )


def pause(run_id: str, *, off: bool, json: bool) -> int:
    """Set or lift the flag of the run that applies a plan: the one named, or what was started from it.

    Raises: RunNotFound; Refused where nothing of it is running.
    """
    from mend.batches import pausing
    from mend.record import archive, provenance

    named = archive.find(run_id)
    running = [record for record in (named, *archive.children(named.run_id)) if _applies(record)]
    if not running:
        raise Refused(
            f"Run {named.run_id} is not applying anything now. Nothing was changed. `mend runs` lists what there is."
        )
    for record in running:
        if off:
            pausing.lift(record.path)
        else:
            who = provenance.who()
            pausing.set_flag(record.path, by=f"{who['os_user']} on {who['host']}", since=now())
        _tell_pause(record, off=off, json=json)
    return 0


def _applies(record: Record) -> bool:
    """Whether a run has begun to apply its plan, and not ended."""
    from mend.record import account

    try:
        events = record.journal.events()
    except RecordDamaged:
        return False
    began = next((n for n, event in enumerate(events) if event.kind == "apply_started"), None)
    ended = any(event.kind == "left" for event in events)  # sealed by the run that went on for it
    return began is not None and not ended and not account.is_closed(events[began:])


def _tell_pause(record: Record, *, off: bool, json: bool) -> None:
    if json:
        screen.document({"run_id": record.run_id, "paused": not off})
    elif off:
        screen.out(f"run {record.run_id} goes on")
    else:
        screen.out(f"run {record.run_id} stops before its next batch, within about a second")
        screen.out("back   " + screen.command(f"mend pause {record.run_id} --off"))


def open_in_lab(slug: str, values: Mapping[str, Any]) -> int:
    """A working copy in JupyterLab; the record is sealed when JupyterLab ends, if the notebook did not."""
    from mend import engine
    from mend.record import archive

    target = _known_target(values["target"])
    record = archive.create(slug, action="open", parameters=dict(values), incident=values["incident"])
    engine.open_in_lab(record, slug, parameters.changed(slug, values))
    if archive.verify(record).state != "whole":
        archive.seal(record, secrets=target.secrets() if target else ())
    screen.say(f"record {record.path}: {record.outcome}")
    return EXIT_CODES[record.outcome]


def _known_target(name: str) -> Target | None:
    """The target, known by name before a run begins; None for the lab, whose incident the run may have to make first."""
    return None if name == "lab" else _resolved(name)


def run(slug: str, values: Mapping[str, Any], *, action: Action, of: str = "") -> Ended:
    """One run from its first event to its seal; the error that ended it is handed on with the record."""
    from mend import engine
    from mend.record import archive

    target = _known_target(values["target"])
    record = archive.create(slug, action=action, parameters=dict(values), incident=values["incident"], of=of)
    screen.heading(f"{action} {slug}: run {record.run_id}")
    error: MendError | None = None
    try:
        engine.execute(record, slug, parameters.changed(slug, values), progress=screen.say)
    except MendError as raised:
        error = raised
    try:
        archive.seal(record, secrets=target.secrets() if target else ())
    except MendError as raised:
        error = raised
    return record, error


def told(record: Record, error: MendError | None, *, json: bool) -> int:
    """Print the run, and give its exit code."""
    from mend.command import archived
    from mend.record import account

    if json:
        screen.document(archived.document(record))
    else:
        archived.tell(record, brief=record.opened["action"] != "plan", watched=screen.watched())
    if error is None:
        return _FOUND if account.conflicts(record.journal.events()) else EXIT_CODES[record.outcome]
    screen.complain(error.message)
    return error.exit_code

"""A revision that committed some of its operations and did not finish: which ones, and the three ways out.

`diagnose` replays the project's own history in a scratch database and compares it with the live catalog, statement by
statement (`halfway`); `plan` resumes, rolls back, or stamps exactly this revision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mend.diagnosis import Check, Diagnosis, Site
from mend.errors import InvalidParameter, MendError, Refused
from mend.plan import Plan
from mend.repairs import halfway, halfway_checks, patch, surroundings, ways
from mend.repairs.halfway import Facts

SLUG = "failed_migration"
OPTIONS = ("resume", "roll_back", "stamp", "retry")


def diagnose(site: Site, *, revision: str, data_operations: str, **_: Any) -> Diagnosis:
    """Compare one revision's operations with the database.

    Parameters
    ----------
    revision : the failed revision; empty: the pending one that has begun, else the next one
    data_operations : ``ran`` or ``not_run``, for row changes that the catalog cannot show; empty: not known

    Returns
    -------
    Diagnosis with the checks environment, version_rows, operations, leftovers, sessions, retry, cause.

    Reads: the catalogs, the version tables, and rows that would break a wanted constraint.  Writes: nothing.
    Raises: InvalidParameter, ProjectBroken, RevisionNotFound, ReplayFailed.
    """
    if site.project is None:
        raise InvalidParameter(
            "No Alembic project was named. Nothing was changed. Pass alembic_ini, or set it for this target in mend.toml."
        )
    facts = halfway.look(site, site.project, revision=revision, data_operations=data_operations)
    questions: tuple[Callable[[Site, Facts], Check], ...] = (
        surroundings.environment,
        halfway_checks.version_rows,
        halfway_checks.operations,
        halfway_checks.leftovers,
        halfway_checks.sessions,
        halfway_checks.retry,
        halfway_checks.cause,
    )
    checks = tuple(surroundings.timed(partial(question, site, facts)) for question in questions)
    alembic = "" if isinstance(facts.environment, MendError) else facts.environment.alembic
    return Diagnosis(
        checks,
        halfway.evidence(facts),
        facts,
        patch.preventions(facts.past, facts.revision, facts.seen, alembic=alembic),
    )


def plan(diagnosis: Diagnosis, *, option: str, write_patch: bool, **_: Any) -> Plan:
    """The steps of one option; without one named, of the first that is possible and safe.

    Raises: InvalidParameter for an unknown option; Refused where the named one is not possible; WrongDatabase unless env.py was
    proven to lead to the target.
    """
    facts: Facts = diagnosis.facts
    if option and option not in OPTIONS:
        raise InvalidParameter(
            f"option is {option!r}. Nothing was changed. Write one of {', '.join(OPTIONS)}, or leave it empty."
        )
    surroundings.require_same_database(diagnosis)
    _require_known_rows(facts)
    blocked = _blocked(diagnosis)
    options = ways.ways_out(facts, blocked=blocked)
    by_itself = [c.option for c, _ in options if c.possible and _safe_by_itself(c.option, facts, blocked)]
    chosen = option or next(iter(by_itself), "")
    choice, steps = next(((c, s) for c, s in options if c.option == chosen), (None, ()))
    if choice is not None and not choice.possible:
        raise Refused(
            f"{option} is not possible: {choice.why_not}. Nothing was changed. Possible: {', '.join(c.option for c, _ in options if c.possible) or 'none'}."
        )
    patches = patch.steps(diagnosis.prevent) if write_patch and choice else ()
    return Plan(
        slug=SLUG,
        target={},
        evidence=diagnosis.evidence,
        chosen=chosen or "none",
        options=tuple(c for c, _ in options),
        steps=(*steps, *patches),
        next=_next(facts, chosen, diagnosis),
        warnings=_warnings(facts, diagnosis),
    )


def _require_known_rows(facts: Facts) -> None:
    """Which revision comes next is only known where every version row is: nothing is added beside a strange one."""
    strange = {
        row["version_num"]: row["position"]
        for row in facts.version_rows.to_dict("records")
        if row["position"] in ("unknown to the files", "an ancestor of another row")
    }
    if strange:
        told = "; ".join(f"{row} is {position}" for row, position in strange.items())
        raise Refused(
            f"The version table {facts.table.schema}.{facts.table.name} does not fit the project's files: {told}. Nothing was changed. "
            "Mend the version rows first (migration_conflict), then make a new plan."
        )


def _safe_by_itself(option: str, facts: Facts, blocked: str) -> bool:
    """Whether an option may be chosen without being named: nothing is given up, and nothing recorded on a conclusion alone."""
    if option == "roll_back":
        return bool(blocked)
    return option != "stamp" or not any(one.inferred for one in facts.seen)


def _blocked(diagnosis: Diagnosis) -> str:
    """Why the missing operations cannot succeed yet, or ''."""
    cause = diagnosis.check("cause")
    return "" if cause.verdict == "healthy" else cause.why or cause.says


def _next(facts: Facts, chosen: str, diagnosis: Diagnosis) -> str:
    ini = facts.past.alembic_ini
    if facts.revision is None or diagnosis.verdict() == "healthy":
        return "Nothing is half-applied: there is nothing to mend."
    blocked = _blocked(diagnosis)
    if chosen == "retry":
        state = "Nothing is half-applied." if facts.untouched() else "The revision goes on from where it stopped."
        return f"{state} {f'{blocked} Then run' if blocked else 'Run'}: alembic -c {ini} upgrade {facts.revision.id}"
    if not chosen:
        return "No way out is safe without you. " + "; ".join(
            f"{c.option}: {c.why_not or 'name it as option'}" for c, _ in ways.ways_out(facts, blocked=blocked)
        )
    return f"Then: {blocked + ' Then: ' if blocked else ''}{facts.past.upgrade}"


def _warnings(facts: Facts, diagnosis: Diagnosis) -> tuple[str, ...]:
    checks = (c for c in diagnosis.checks if c.verdict == "could_not_check")
    inferred = (
        f"Operation {one.statement.operation} ({one.statement.says}) changes rows, which nobody can see. It is taken to have run: {one.detail}. "
        f"If that is not so, pass data_operations={one.statement.operation}:not_run"
        for one in facts.seen
        if one.inferred
    )
    return (*facts.replayed.warnings, *inferred, *(f"{c.question} Could not check: {c.why}" for c in checks))


def verify_with(made: Plan) -> Mapping[str, Any]:
    """The parameters for looking again: the same revision, whatever is pending now."""
    return {"revision": made.evidence["revision"]}


def unmet(made: Plan, again: Diagnosis) -> Sequence[str]:
    """What the plan promised and a new diagnosis does not find."""
    facts: Facts = again.facts
    left = again.check("leftovers").frame.to_dict("records")
    problems = [
        f"{row['identity']}: {row['state']}"
        for row in left
        if row["kind"] == "invalid index" and row["identity"] in facts.touched()
    ]
    if made.chosen == "roll_back":
        return problems + ways.remains(facts)
    if facts.replayed.error:
        problems.append(f"not every operation is known: {facts.replayed.error}")
    if not facts.stamped:
        problems.append(f"the version row is not {made.evidence['revision']}")
    lacking = facts.operations[facts.operations["state"].isin(["NOT_DONE", "DIFFERENT"])].to_dict("records")
    return problems + [
        f"operation {row['index']} ({row['operation']}): {row['state']} {row['detail']}".strip() for row in lacking
    ]

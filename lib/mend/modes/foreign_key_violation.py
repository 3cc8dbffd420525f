"""A foreign key that cannot be made because rows refer to parents that are not there: which, how they got in, and the ways out.

`plan` makes the key NOT VALID first, which stops new orphans without a scan, then repairs rows in batches, then validates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mend.constraints import missing_parents, orphan_checks, orphans
from mend.constraints.orphaned import Facts
from mend.database import names
from mend.database.catalog import Change
from mend.diagnosis import Check, Diagnosis, Site
from mend.errors import InvalidParameter, Refused
from mend.plan import Plan, Step
from mend.repairs import foreign_keys, halfway, subject, surroundings

SLUG = "foreign_key_violation"
OPTIONS = orphans.OPTIONS


def diagnose(
    site: Site,
    *,
    revision: str,
    table: str,
    columns: str,
    constraint: str,
    parent: str,
    stub: str,
    mask: bool,
    **given: Any,
) -> Diagnosis:
    """Look at the rows whose parent is missing, at the key that is wanted, and at what would repair them.

    Parameters
    ----------
    revision : the revision that wants the key; empty: the next that is pending
    table, columns, constraint : the key, columns comma separated; empty: the one that the revision wants
    parent : ``customers`` or ``customers(email)``; needed only where no revision wants the key and none stands
    stub : ``column = expression, ...`` for the other columns of missing parents

    Returns
    -------
    Diagnosis with the checks environment, wanted, orphans, parent_key, bypasses, references, index, tables, sessions.

    Reads: the catalogs, the version tables, both tables, what refers to the orphans.  Writes: nothing.
    Raises: InvalidParameter, ProjectBroken, RevisionNotFound, ReplayFailed.
    """
    named = {"table": table, "columns": columns, "constraint": constraint, "parent": parent}
    wanted = missing_parents.find(site, revision, named)
    if wanted is None:
        return _nothing(orphan_checks.nothing_wanted())
    key = foreign_keys.read(wanted.identity, wanted.definition)
    if key is None:
        raise InvalidParameter(f"{wanted.identity} is a key with a period. Nothing was changed. Mend its rows by hand.")
    if made := missing_parents.made_with(wanted, key):
        return _nothing(orphan_checks.nothing_there(made, fills=missing_parents.fills(wanted)))
    facts = missing_parents.look(site, wanted, key, stub=stub, mask=mask, given=given)
    checks = (
        surroundings.timed(partial(surroundings.environment, site, wanted.facts)),
        *orphan_checks.checks(facts),
        surroundings.timed(partial(surroundings.sessions, site, {key.table, key.parent})),
    )
    return Diagnosis(checks, _evidence(facts, stub), facts, orphan_checks.preventions(facts))


def _nothing(check: Check) -> Diagnosis:
    return Diagnosis((check,), {"revision": None, "wanted": {}})


def _evidence(facts: Facts, stub: str) -> dict[str, Any]:
    """What a plan's digest covers: of rows the ceiling, for tables move."""
    found = facts.subject.evidence()
    parent = {
        f"{kind} {identity}": text
        for (kind, identity), text in sorted(facts.live.items())
        if facts.key.parent in (identity, halfway.relation_of(Change(kind, identity, None, text)))
    }
    return found | {"objects": {**found["objects"], **parent}, "rows_at_most": facts.at_most, "stub": stub}


# -- the plan ----------------------------------------------------------------------------------------------------------


def plan(diagnosis: Diagnosis, *, option: str, **_: Any) -> Plan:
    """The steps of one option; without one named, of the one that loses least, and never one that deletes.

    Raises: InvalidParameter for an unknown option; Refused where the named one is not possible; WrongDatabase unless env.py was
    proven to lead to the target.
    """
    if option and option not in OPTIONS:
        raise InvalidParameter(
            f"option is {option!r}. Nothing was changed. Write one of {', '.join(OPTIONS)}, or leave it empty."
        )
    facts: Facts | None = diagnosis.facts
    if facts is None or (facts.valid and facts.count.rows == 0):
        return Plan(SLUG, {}, diagnosis.evidence, "none", next="No row is in the way of a key: run alembic upgrade.")
    surroundings.require_same_database(diagnosis)
    found = orphans.ways(facts)
    named = option if facts.count.rows != 0 else ""  # without orphans there is nothing to choose
    chosen = named or orphans.by_itself(facts, found)
    choice, repairs = next(way for way in found if way[0].option == chosen)
    if not choice.possible:
        raise Refused(f"{option} is not possible: {choice.why_not}. Nothing was changed.")
    steps, further = ((), _stopped(facts)) if chosen == "stop" else _finished(facts, repairs)
    return Plan(
        SLUG,
        {},
        diagnosis.evidence,
        chosen,
        tuple(c for c, _ in found),
        steps,
        further,
        _warnings(facts, diagnosis, chosen),
    )


def _stopped(facts: Facts) -> str:
    if facts.obstacle:
        return f"Nothing can be repaired yet: {facts.obstacle}."
    return (
        "Choose an option: "
        + "; ".join(f"{c.option}: {c.why_not or c.says}" for c, _ in orphans.ways(facts) if c.option != "stop")
        + "."
    )


def _finished(facts: Facts, repairs: Sequence[Step]) -> tuple[tuple[Step, ...], str]:
    """The whole of it where the revision can be finished here; else the rows alone, for the revision makes the key itself."""
    steps, why_not = subject.finish(facts.subject, orphans.around(facts, repairs))
    if facts.others:
        why_not = f"rows are in the way of more that it makes: {'; '.join(facts.others)}; mend those too"
    if not why_not:
        return steps, f"Then: {facts.subject.upgrade}."
    return (
        tuple(repairs),
        f"The key is left to the revision ({why_not}); new orphans can come in until it is made. Then: {facts.subject.upgrade}.",
    )


def _warnings(facts: Facts, diagnosis: Diagnosis, chosen: str) -> tuple[str, ...]:
    open_ways = [f"{row['object']} {row['says']}" for row in facts.bypasses.to_dict("records")]
    unchecked = [f"{c.question} Could not check: {c.why}" for c in diagnosis.checks if c.verdict == "could_not_check"]
    return (*open_ways, *unchecked, *orphans.doubts(facts, chosen))


def verify_with(made: Plan) -> Mapping[str, Any]:
    """The parameters for looking again: the same key, whatever is pending now."""
    identity, definition = next(iter(made.evidence["wanted"].items()), ("", ""))
    key = foreign_keys.read(identity, definition) if identity else None
    return {
        "revision": made.evidence["revision"] or "",
        "table": key.table if key else "",
        "columns": ", ".join(key.columns) if key else "",
        "constraint": names.last(identity) if identity else "",
        "parent": f"{key.parent}({', '.join(key.keys)})" if key else "",
        "stub": "",
    }


def unmet(made: Plan, again: Diagnosis) -> Sequence[str]:
    """What the plan promised and a new diagnosis does not find."""
    facts: Facts | None = again.facts
    if facts is None:
        return ("the key is not known any more",)
    problems = [] if facts.count.rows == 0 else [f"rows without a parent: {facts.count.says}"]
    revision = made.evidence["revision"]
    if any("validate constraint" in step.sql() for step in made.steps) and not facts.valid:
        problems.append(f"{facts.key.identity} is {facts.standing or 'absent'}")
    recorded = any(f"record revision {revision}" in step.says.lower() for step in made.steps)
    if recorded and facts.subject.facts and not facts.subject.facts.stamped:
        problems.append(f"the version row is not {revision}")
    return problems

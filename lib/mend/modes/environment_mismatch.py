"""The schema is not what its recorded revision makes: where, which operation each difference belongs to, and the ways out.

`diagnose` compares the live catalog with that of the replayed history, or with another database; `plan` reverts, repairs, adopts or
corrects the version row, for each difference as it was chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mend.database import names
from mend.diagnosis import Check, Diagnosis, Prevention, Site
from mend.errors import InvalidParameter, Refused
from mend.mismatch import drift, drift_checks, drift_ways, drifted, plots_drift
from mend.mismatch.drift import Difference
from mend.mismatch.drifted import Facts
from mend.plan import Plan, Step
from mend.record.markup import Shown
from mend.repairs import halfway, surroundings

SLUG = "environment_mismatch"
OPTIONS = drift_ways.OPTIONS


def diagnose(site: Site, *, other: str, base: str, base_revision: str, roles: bool, **_: Any) -> Diagnosis:
    """Compare the live catalog with what the history makes of the recorded revisions, or with another database.

    Parameters
    ----------
    other : another target, e.g. ``"env:STAGING_URL"``; empty: the replayed history
    base, base_revision : a dump to start the replay from, and its revision, where the history cannot start from an empty database
    roles : owners and privileges too

    Returns
    -------
    Diagnosis with the checks environment, version_rows, revisions, differences, groups, files, server, sessions.

    Reads: the catalogs, the version tables, rows that stand in the way of a missing constraint.  Writes: a scratch database.
    Raises: InvalidParameter, ProjectBroken, RevisionNotFound, ReplayFailed, TargetUnknown, TargetUnreachable.
    """
    if site.project is None:
        raise InvalidParameter(
            "No Alembic project was named. Nothing was changed. Pass alembic_ini, or set it for this target in mend.toml."
        )
    facts = drifted.look(site, site.project, other=other, base=base, base_revision=base_revision, roles=roles)
    questions: tuple[Callable[[], Check], ...] = (
        partial(surroundings.environment, site, facts),
        *(partial(ask, facts) for ask in drift_checks.QUESTIONS),
        partial(surroundings.sessions, site, _relations(facts.drift.differences)),
    )
    return Diagnosis(tuple(surroundings.timed(ask) for ask in questions), _evidence(facts), facts, _preventions(facts))


def _relations(differences: Sequence[Difference]) -> set[str]:
    return {halfway.relation_of(one.reverting()) for one in differences} - {""}


def _evidence(facts: Facts) -> dict[str, Any]:
    """What a plan's digest covers: the version rows, the files, what is compared with, and every object that differs with all that is on it."""
    objects = {one.object for one in facts.drift.differences}
    ours = {key: text for key, text in facts.live.items() if Difference(*key, None, text, "", 0, "").object in objects}
    return {
        "revision": ", ".join(facts.table.rows) or None,
        "version_rows": dict.fromkeys(facts.table.rows, "present"),
        "files": facts.past.digest,
        "against": {one.name: str(one.expected) for one in facts.drift.differences},
        "objects": {f"{kind} {identity}": text for (kind, identity), text in sorted(ours.items())},
    }


def _preventions(facts: Facts) -> tuple[Prevention, ...]:
    found = [
        Prevention(
            f"{edit.path} was {edit.says}. A revision that any database has had stays as it is: write a new one."
        )
        for edit in facts.edits
    ]
    if facts.drift.differences:
        found.append(
            Prevention(
                f"Run `mend plan {SLUG}` in CI against each environment: exit code 0 says that nothing differs, 2 that something does."
            )
        )
    if any(one.attribution == drift.NEVER_RAN for one in facts.drift.differences):
        found.append(
            Prevention(
                "Never `alembic stamp` past a failure. `mend plan failed_migration` records exactly the revision that is there."
            )
        )
    return tuple(found)


def plan(diagnosis: Diagnosis, *, option: str, resolve: str, revision: str, **_: Any) -> Plan:
    """The steps of one option for every difference, or of the option that was chosen for each.

    Raises: InvalidParameter for what cannot be read; Refused where an option is not possible; WrongDatabase unless env.py was
    proven to lead to the target.
    """
    facts: Facts = diagnosis.facts
    if option and option not in OPTIONS:
        raise InvalidParameter(
            f"option is {option!r}. Nothing was changed. Write one of {', '.join(OPTIONS)}, or leave it empty."
        )
    chosen = drift_ways.chosen(resolve, option, facts.drift.differences)
    acting = option == "stamp" or any(word != "report" for word in chosen.values())
    if acting:
        surroundings.require_same_database(diagnosis)
    ways = {word: drift_ways.way(word, facts, revision, named=word in (option, *chosen.values())) for word in OPTIONS}
    steps: tuple[Step, ...] = ()
    if option == "stamp":
        choice, steps = ways["stamp"]
        if not choice.possible:
            raise Refused(f"stamp is not possible: {choice.why_not}. Nothing was changed.")
    elif acting:
        drift_ways.require_own(option, facts)
        steps = drift_ways.steps_of(chosen, facts)
    return Plan(
        slug=SLUG, target={}, evidence=dict(diagnosis.evidence) | {"chosen": {one.name: word for one, word in chosen.items() if word != "report"}},
        chosen="resolve" if resolve else option or "report", options=tuple(choice for choice, _ in ways.values()), steps=steps,
        next=_next(facts, acting), warnings=(*_empty(chosen, steps), *_warnings(facts, diagnosis, chosen)),
    )  # fmt: skip


def _next(facts: Facts, acting: bool) -> str:
    if acting:
        return f"Then: {facts.past.upgrade}"
    if not facts.drift.differences:
        return "Nothing differs: there is nothing to mend."
    return "Choose an option for all of them, or one for each with the parameter resolve."


def _empty(chosen: Mapping[Difference, str], steps: Sequence[Step]) -> tuple[str, ...]:
    """Tables and columns that are made anew: their content is not a matter of the schema."""
    sent = [statement.sql for step in steps for statement in step.statements]
    made = [
        one.identity
        for one, word in chosen.items()
        if word == "revert" and one.kind in ("table", "column") and one.live is None
        if any(f"table {one.identity} " in sql and sql.startswith("create ") for sql in sent)
        or any(f" {names.parent(one.identity)} add column {names.last(one.identity)} " in sql for sql in sent)
    ]
    return (f"{', '.join(made)}: made anew, without what was in it; rows get the default.",) if made else ()


def _warnings(facts: Facts, diagnosis: Diagnosis, chosen: Mapping[Difference, str]) -> tuple[str, ...]:
    unchecked = (f"{c.question} Could not check: {c.why}" for c in diagnosis.checks if c.verdict == "could_not_check")
    rows = (
        f"{name}: {says}"
        for name, says in facts.obstacles.items()
        if any(one.name == name and word in ("revert", "repair") for one, word in chosen.items())
    )
    return (*facts.expected.warnings, *rows, *unchecked)


def draw(diagnosis: Diagnosis, name: str) -> Shown | None:
    """The picture that belongs to a check."""
    facts = diagnosis.facts
    return plots_drift.where(facts.drift.differences) if name == "groups" and isinstance(facts, Facts) else None


def verify_with(made: Plan) -> Mapping[str, Any]:
    """Nothing: the same comparison again, with the version rows as they are now."""
    return {}


def unmet(made: Plan, again: Diagnosis) -> Sequence[str]:
    """What the plan promised and a new comparison does not find."""
    facts: Facts = again.facts
    left = {one.name: one for one in facts.drift.differences}
    if made.chosen == "stamp":
        return [f"{name} still differs from what {', '.join(facts.table.rows)} makes" for name in left]
    mended, known = made.evidence.get("chosen", {}), made.evidence.get("against", {})
    return [
        f"{name} {'still differs' if name in known else 'has come to differ'}: expected {one.expected}, found {one.live}"
        for name, one in left.items()
        if name in mended or name not in known
    ]

"""The application and the database are of different versions: which side lacks what, what works with what, and the ways to bring them together.

`diagnose` asks both schemas what they say to both versions of the application, without running anything of theirs; `plan` upgrades to
what is needed, changes in phases, or gives the application for the moment what it cannot do without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mend.diagnosis import Check, Diagnosis, Prevention, Site
from mend.errors import InvalidParameter, Refused
from mend.plan import Choice, Plan
from mend.repairs import surroundings
from mend.skew import notes, phases, sides, skew_checks, skew_ways
from mend.skew.sides import Facts

SLUG = "version_skew"
OPTIONS = ("upgrade", "phased", "shim", "forward")


def diagnose(site: Site, *, option: str, phase: str, fill: str, **given: Any) -> Diagnosis:
    """Hold both versions of the application against both schemas, and the revisions of the code against those of the database.

    Parameters
    ----------
    metadata, statements : what the new application expects: ``module:attribute`` of its SQLAlchemy metadata, a file of its SQL
    old_metadata, old_statements, old_ref : the same of the version before, or the git ref that it was made from
    revision, old_revision : what the new application needs, and what the old one was written for; empty: the heads, the one before
    option, phase, fill : what is to be planned; a phase is asked for its gate, a fill is checked

    Returns
    -------
    Diagnosis with the checks environment, heads, expectations, unknown_columns, matrix, pending, stale, standing, gate, sessions.

    Reads: the catalogs, the version tables; of a gate, rows.  Writes: a scratch database.
    Raises: InvalidParameter, ProjectBroken, RevisionNotFound.
    """
    if site.project is None:
        raise InvalidParameter(
            "No Alembic project was named. Nothing was changed. Pass alembic_ini, or set it for this target in mend.toml."
        )
    facts = phases.prepared(site, sides.look(site, site.project, **given), option=option, phase=phase, fill=fill)
    questions: tuple[Callable[[], Check], ...] = (
        partial(surroundings.environment, site, facts),
        *(partial(ask, facts) for ask in skew_checks.QUESTIONS),
        partial(phases.gate_check, facts),
        partial(surroundings.sessions, site, phases.tables(facts)),
    )
    checks = tuple(surroundings.timed(ask) for ask in questions)
    return Diagnosis(checks, _evidence(facts), facts, _preventions(facts, option))


def _evidence(facts: Facts) -> dict[str, Any]:
    """What a plan's digest covers: version rows, files, what breaks where, every object of the tables concerned, the phase and its gate."""
    concerned = phases.tables(facts)
    objects = {
        f"{kind} {identity}": text
        for (kind, identity), text in sorted(facts.live.items())
        if phases.about(kind, identity, text) & concerned
    }
    return {
        "revision": ", ".join(facts.table.rows) or None,
        "version_rows": dict.fromkeys(facts.table.rows, "present"),
        "files": facts.past.digest,
        "works": {
            f"{one.application.name} application, {one.schema.name} schema": f"{one.verdict} {one.why}".strip()
            for one in facts.cells
        },
        "objects": objects,
        "phase": phases.evidence(facts),
    }


def _preventions(facts: Facts, option: str) -> tuple[Prevention, ...]:
    says = [
        "Before each deploy, in CI or as its first step: `mend plan version_skew` with metadata and old_metadata. All four cells of the matrix must work.",
        "Keep a column that any running version writes for one release more: expand, deploy, backfill, contract (option phased).",
    ]
    if len(facts.sessions):
        says.append(
            "After a change of schema recycle the connection pools: sessions keep the plans of their prepared statements (0A000)."
        )
    if option == "shim" or any(one.phase == notes.SHIM for one in facts.notes):
        says.append(
            "Follow-up: take the emergency repair away again, with `mend undo` of its run, once no version needs it; check `standing` lists it until then."
        )
    return tuple(Prevention(one) for one in says)


def plan(diagnosis: Diagnosis, *, option: str, phase: str, revision: str, **_: Any) -> Plan:
    """The steps of one option; without one named, of the first that is possible and breaks nothing that runs.

    Raises: InvalidParameter for an unknown option or phase; Refused where the named one is not possible, or the gate of its phase is shut;
    WrongDatabase unless env.py was proven to lead to the target.
    """
    facts: Facts = diagnosis.facts
    if option and option not in OPTIONS:
        raise InvalidParameter(
            f"option is {option!r}. Nothing was changed. Write one of {', '.join(OPTIONS)}, or leave it empty."
        )
    ways = [
        skew_ways.upgrade(facts, goal=revision),
        phases.way(facts),
        skew_ways.shim(facts, facts.fills),
        skew_ways.forward(facts),
    ]
    chosen = option or _by_itself(facts, [choice for choice, _ in ways])
    choice, steps = next(((c, s) for c, s in ways if c.option == chosen), (None, ()))
    if choice is not None and not choice.possible:
        possible = ", ".join(c.option for c, _ in ways if c.possible) or "none"
        raise Refused(f"{chosen} is not possible: {choice.why_not}. Nothing was changed. Possible: {possible}.")
    if steps:
        surroundings.require_same_database(diagnosis)
    return Plan(
        slug=SLUG, target={}, evidence=diagnosis.evidence, chosen=chosen or "none", options=tuple(c for c, _ in ways), steps=steps,
        next=_next(facts, diagnosis, chosen, choice), warnings=(*phases.warnings(facts, chosen), *skew_checks.warnings(facts, diagnosis.checks)),
    )  # fmt: skip


def _by_itself(facts: Facts, choices: Sequence[Choice]) -> str:
    """What may be chosen without being named: what breaks no application that runs, and is needed."""
    possible = {one.option for one in choices if one.possible}
    if phases.begun(facts):
        return "phased" if "phased" in possible else ""
    needed = any(one.verdict == "breaks" for one in facts.live_cells()) or bool(facts.pending)
    if not needed:
        return ""
    if "upgrade" in possible:
        harm = skew_ways.breaks_old(facts, facts.pending)
        return ("phased" if "phased" in possible else "") if harm else "upgrade"
    return "shim" if "shim" in possible else "forward" if "forward" in possible else ""


def _next(facts: Facts, diagnosis: Diagnosis, chosen: str, choice: Choice | None) -> str:
    if chosen == "phased":
        return phases.next_words(facts)
    if chosen == "shim":
        return "Then deploy the version that fits, and take this away again: mend undo, with the id of the run that applied it."
    if chosen == "forward" and choice:
        return f"{choice.says}. Nothing is to be done in the database."
    if chosen == "upgrade":
        return "Then recycle the application's connection pools, and diagnose again."
    if diagnosis.verdict() == "healthy":
        return "Code and database fit: there is nothing to mend."
    return "No way out is safe without you: name one as option. See the matrix for what works with what."


def verify_with(made: Plan) -> Mapping[str, Any]:
    """The parameters for looking again: the same revision, so that what is pending now is known."""
    return {}


def unmet(made: Plan, again: Diagnosis) -> Sequence[str]:
    """What the plan promised and a new diagnosis does not find."""
    facts: Facts = again.facts
    if made.chosen == "phased":
        return phases.unmet(made, facts)
    if made.chosen == "upgrade":
        wanted = {one.option: one for one in made.options}["upgrade"].says
        left = [one for one in facts.pending if f" {one}, which" in wanted]
        new = [one for one in facts.live_cells() if one.application.name == "new" and one.verdict == "breaks"]
        return [f"revision {one} is still pending" for one in left] + [
            f"the new application still fails: {one.why}" for one in new
        ]
    return [
        f"the {one.application.name} application still fails: {one.why}"
        for one in facts.live_cells()
        if one.verdict == "breaks" and made.chosen == "shim"
    ]

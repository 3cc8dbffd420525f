"""A downgrade that fails, or that does not give back what was: why, what it costs, and the ways out.

`diagnose` proves the way down in scratch (up, down, up again) and finds what is in its way here; `plan` goes down in order and in one
transaction, drops what an earlier downgrade left behind, or goes forward instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mend.database import catalog
from mend.database.catalog import Change
from mend.diagnosis import Check, Diagnosis, Site
from mend.errors import InvalidParameter, Refused
from mend.plan import Plan
from mend.repairs import halfway, surroundings
from mend.rollback import descent, descent_checks, descent_file, descent_ways, pieces, toll
from mend.rollback.descent import Facts

SLUG = "rollback_failure"
OPTIONS = descent_ways.OPTIONS


def diagnose(site: Site, *, revision: str, base: str, base_revision: str, **_: Any) -> Diagnosis:
    """Prove the way down from the version rows, and find what is in its way.

    Parameters
    ----------
    revision : where to go down to: an id, a label, ``base``, ``-2``, or ``HEAD@-1`` of one of several heads; empty: one step
    base, base_revision : a dump to start the replay from, and its revision, where the history cannot start from an empty database

    Returns
    -------
    Diagnosis with the checks environment, version_rows, midway, dependents, silent, proof, left, losses, leftovers, sessions.

    Reads: the catalogs, the version tables, how many rows hold what goes.  Writes: scratch databases.
    Raises: InvalidParameter, ProjectBroken, RevisionNotFound, ReplayFailed, ScratchUnavailable.
    """
    if site.project is None:
        raise InvalidParameter(
            "No Alembic project was named. Nothing was changed. Pass alembic_ini, or set it for this target in mend.toml."
        )
    facts = descent.look(site, site.project, revision=revision, base=base, base_revision=base_revision)
    relations = {halfway.relation_of(c) for p in facts.pieces for c in p.changes} | {
        one.identity for one in facts.hanging
    }
    questions: tuple[Callable[[], Check], ...] = (
        partial(surroundings.environment, site, facts),
        *(partial(ask, facts) for ask in descent_checks.QUESTIONS),
        partial(surroundings.sessions, site, relations - {""}),
    )
    checks = tuple(surroundings.timed(ask) for ask in questions)
    return Diagnosis(checks, descent.evidence(facts), facts, descent_file.preventions(facts))


def plan(diagnosis: Diagnosis, *, option: str, leave: str, revision: str, **_: Any) -> Plan:
    """The steps of one option; without one named, of the first that is needed, possible and gives up nothing.

    Raises: InvalidParameter for an unknown option or name; Refused where the option is not possible; WrongDatabase unless env.py was
    proven to lead to the target.
    """
    facts: Facts = diagnosis.facts
    if option and option not in OPTIONS:
        raise InvalidParameter(
            f"option is {option!r}. Nothing was changed. Write one of {', '.join(OPTIONS)}, or leave it empty."
        )
    ways = descent_ways.ways(facts, leave)
    possible = {choice.option for choice, _ in ways if choice.possible}
    chosen = option or next((one for one in _by_itself(facts, diagnosis, revision) if one in possible), "")
    choice, steps = next(((c, s) for c, s in ways if c.option == chosen), (None, ()))
    if choice is not None and not choice.possible:
        raise Refused(
            f"{option} is not possible: {choice.why_not}. Nothing was changed. Possible: {', '.join(sorted(possible)) or 'none'}."
        )
    if steps:
        surroundings.require_same_database(diagnosis)
    return Plan(
        slug=SLUG, target={}, evidence=dict(diagnosis.evidence) | _promises(facts, chosen), chosen=chosen or "none",
        options=tuple(c for c, _ in ways), steps=steps, next=_next(facts, chosen, diagnosis), warnings=_warnings(facts, diagnosis, chosen),
    )  # fmt: skip


def _by_itself(facts: Facts, diagnosis: Diagnosis, revision: str) -> tuple[str, ...]:
    """What may be done without being named: nothing at all where plain alembic does."""
    if facts.leftovers and not revision:
        return () if facts.spoken_of else ("drop_leftover",)
    trouble = any(
        diagnosis.check(name).verdict == "found" for name in ("midway", "left", "silent", "losses", "dependents")
    )
    return ("downgrade",) if facts.path and trouble else ()


def _promises(facts: Facts, chosen: str) -> dict[str, Any]:
    """What must hold afterwards: in words that a later diagnosis can be held against."""
    if chosen not in ("downgrade", "best_effort"):
        return {"chosen": chosen, "leftovers": [f"{c.kind} {c.identity}" for _, c in facts.leftovers]}
    odd = sorted(f"{c.kind} {c.identity}" for c in strange(facts.live, facts.expected_now))
    again = {f"{one.kind} {one.identity}": "made again" for one in facts.hanging if not facts.why_gone(one)}
    stay = {f"{one.kind} {one.identity}": "stays dropped" for one in facts.hanging if facts.why_gone(one)}
    mine = [one.key for one in facts.hanging if not facts.why_gone(one)]
    return {
        "chosen": chosen,
        "rows_then": list(facts.rows_then),
        "odd_before": odd,
        "dependents": again | stay,
        "again": pieces.labels_of(mine, facts.live),
    }


def strange(live: Mapping[tuple[str, str], str], expected: Mapping[tuple[str, str], str]) -> list[Change]:
    """What is not as the history makes it, roles left out."""
    keys = sorted(live.keys() | expected.keys())
    return [
        Change(*key, expected.get(key), live.get(key))
        for key in keys
        if key[0] not in catalog.ROLE_KINDS and live.get(key) != expected.get(key)
    ]


def _next(facts: Facts, chosen: str, diagnosis: Diagnosis) -> str:
    ini = facts.past.alembic_ini
    if chosen in ("drop_leftover", "forward_fix"):
        goal = "heads" if len(facts.past.heads) > 1 and chosen != "forward_fix" else "head"
        return f"Then: alembic -c {ini} upgrade {goal}"
    if chosen:
        return f"Then deploy what belongs to {', '.join(facts.rows_then) or 'an empty database'}. The way back is `mend undo`."
    if facts.choices:
        return f"Say which head to go back from: revision={' or '.join(f'{one}@-1' for one in facts.choices)}."
    if facts.path and not facts.first_stop()[0] and not _by_itself(facts, diagnosis, "x"):
        return f"Nothing is in the way and nothing is lost: alembic -c {ini} downgrade {facts.down_to or '-1'}"
    if not facts.path:
        return "There is no revision to take back."
    ways = descent_ways.ways(facts, "")
    named = [c.option for c, _ in ways if c.possible]
    return f"No way out is safe without you. Possible when you name it as option: {', '.join(named) or 'none'}. Why not the others stands above."


def _warnings(facts: Facts, diagnosis: Diagnosis, chosen: str) -> tuple[str, ...]:
    unchecked = (f"{c.question} Could not check: {c.why}" for c in diagnosis.checks if c.verdict == "could_not_check")
    recorded = (w for p in facts.proofs for w in p.warnings)
    going = chosen in ("downgrade", "best_effort")
    named = (
        f"{m.function} names {m.object} ({m.says}): a heuristic, nothing changes it" for m in facts.mentions if going
    )
    inverse = (
        f"downgrade() of {p.revision} fails in scratch, so what upgrade() made is taken back instead; what it did to rows is not"
        for p in facts.proofs
        if p.failed and going
    )
    again = [one for one in facts.hanging if not facts.why_gone(one)]
    told = toll.told(facts.pieces, again, facts.sizes, facts.marks) if going else ()
    return (*facts.proven.warnings, *recorded, *inverse, *told, *named, *unchecked)


def verify_with(made: Plan) -> Mapping[str, Any]:
    """The parameters for looking again: at wherever the version rows are now."""
    down = made.chosen in ("downgrade", "best_effort")
    return {"revision": "here" if down else "", "leave": "", "option": ""}


def unmet(made: Plan, again: Diagnosis) -> Sequence[str]:
    """What the plan promised and a new diagnosis does not find."""
    facts: Facts = again.facts
    if made.chosen == "drop_leftover":
        left = {f"{c.kind} {c.identity}" for _, c in facts.leftovers}
        return [f"{name} is still there" for name in made.evidence["leftovers"] if name in left]
    if made.chosen == "forward_fix":
        return [] if len(facts.past.heads) == 1 else [f"the history has the heads {', '.join(facts.past.heads)}"]
    problems = []
    if set(facts.table.rows) != set(made.evidence["rows_then"]):
        problems.append(f"the version rows are {', '.join(facts.table.rows) or 'none'}")
    known = {*made.evidence["odd_before"], *made.evidence["dependents"]}
    odd = [c for c in strange(facts.live, facts.expected_now) if f"{c.kind} {c.identity}" not in known]
    objects = {name.split(" ", 1)[1] for name in known}
    problems += [
        f"{c.kind} {c.identity}: expected {c.before or '(absent)'}, found {c.after or '(absent)'}"
        for c in odd
        if not pieces.hangs_on(c, objects)
    ]
    there = {f"{kind} {identity}": (kind, identity) for kind, identity in facts.live}
    mine = [there[one] for one, word in made.evidence["dependents"].items() if word == "made again" and one in there]
    has, had = pieces.labels_of(mine, facts.live), made.evidence["again"]
    problems += [f"{one} was {had.get(one, '(absent)')}, and is {has.get(one, '(absent)')}" for one in sorted(had.keys() | has.keys()) if had.get(one) != has.get(one)]  # fmt: skip
    return problems + [
        f"{name} was not made again"
        for name, word in made.evidence["dependents"].items()
        if word == "made again" and name not in there
    ]

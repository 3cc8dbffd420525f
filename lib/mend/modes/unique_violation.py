"""A key is to be unique, and rows share it: which rows, what points at them, and the ways out.

Its look-alikes are told apart: a sequence behind its rows, an INVALID index that refuses rows already, a valid index that rows
contradict.  `plan` mends the rows in batches, builds the index without blocking, and finishes the revision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mend.constraints import deduplicate, duplicate_rows, proposals, sequences, unique_index, unique_ways, uniqueness
from mend.constraints.proposals import Objection
from mend.constraints.unique_ways import Behind
from mend.constraints.uniqueness import Facts
from mend.database import names, queries
from mend.database.catalog import Change, index_state
from mend.diagnosis import Check, Diagnosis, Site
from mend.errors import InvalidParameter, Refused
from mend.plan import Plan
from mend.repairs import subject, surroundings, violations
from mend.repairs.subject import Subject

SLUG = "unique_violation"
OPTIONS = (*deduplicate.OPTIONS, "build", "setval", "stop")


def diagnose(
    site: Site,
    *,
    revision: str,
    table: str,
    columns: str,
    constraint: str,
    order_by: str,
    suffix: str,
    option: str,
    mask: bool,
    **given: Any,
) -> Diagnosis:
    """Look at the rows that share a key, and at what could become of them.

    Parameters
    ----------
    revision : the revision that wants the key unique; empty: the next that is pending
    table, columns, constraint : the key, where the revision does not say it; names as in the error message
    order_by : which row of a group comes first, e.g. ``last_login desc``; empty: ``created_at`` where there is one; ties by the key
    suffix : what is added to a value, with ``{n}`` or ``{key}`` in it; empty: ``+dup{n}`` before the @ of an address, else ``-dup{n}``

    Returns
    -------
    Diagnosis with the checks environment, index, groups, rows, spelling, children, sequence, values, sessions.

    Reads: the catalogs, the version tables, the table and what points at it.  Writes: nothing.
    Raises: InvalidParameter, ProjectBroken, RevisionNotFound, ReplayFailed, PrivilegeMissing.
    """
    wanted = _wanted(site, revision, table, columns, constraint)
    with site.target.reading(site.run_id) as conn:
        behind = sequences.look(conn, wanted.table if wanted else "")
    moved = {one.sequence: "behind" for one in behind.behind}
    if wanted is None:
        evidence: dict[str, Any] = {"revision": None, "wanted": {}, "sequences": moved}
        return Diagnosis(uniqueness.nothing_wanted(behind), evidence, Behind(behind))
    found = duplicate_rows.look(site, wanted, order_by=order_by, suffix=suffix, mask=mask)
    examined = option if option in deduplicate.OPTIONS else "suffix"
    making = unique_index.making(wanted.change, live=wanted.live, keeper=wanted.keeper)
    facts = Facts(wanted, found, making, behind, examined, (), given)
    if not unique_ways.why_not(facts, examined):
        facts = replace(facts, objections=_objections(site, wanted, found.scene, examined, mask))
    relations = [wanted.table, *(one.child for one in found.scene.references)]
    questions: tuple[Callable[[], Check], ...] = (
        partial(surroundings.environment, site, wanted.facts),
        partial(uniqueness.index, facts),
        partial(uniqueness.groups, facts),
        partial(uniqueness.rows, facts),
        partial(uniqueness.spelling, facts),
        partial(uniqueness.children, facts),
        partial(uniqueness.sequence, behind),
        partial(uniqueness.values, facts),
        partial(surroundings.sessions, site, relations),
    )
    evidence = wanted.evidence() | {
        "rows_at_most": unique_ways.at_most(facts, found.scene.others),
        "sequences": moved,
        "order_by": order_by,
        "suffix": suffix,
    }
    return Diagnosis(
        tuple(surroundings.timed(ask) for ask in questions), evidence, facts, uniqueness.preventions(facts)
    )


def _wanted(site: Site, revision: str, table: str, columns: str, constraint: str) -> Subject | None:
    """The key in question; what an error message leaves out is read off the constraint that it names."""
    name = ""
    if constraint:
        with site.target.reading(site.run_id) as conn:
            there = queries.frame(conn, "unique_violation/named", name=names.unquoted(constraint))
        name, known = str(there["quoted"].iloc[0]), there.dropna()
        if len(known) == 1:
            table, columns = table or str(known["relation"].iloc[0]), columns or str(known["columns"].iloc[0])

    def otherwise(owner: str, keys: tuple[str, ...]) -> Change:
        return Change(
            "constraint", f"{owner}.{name or unique_index.named(owner, keys)}", None, f"UNIQUE ({', '.join(keys)})"
        )

    found = subject.find(
        site, "unique", revision=revision, table=table, columns=columns, constraint=constraint, otherwise=otherwise
    )
    return found and _as_it_stands(found)


def _as_it_stands(wanted: Subject) -> Subject:
    """Where no revision makes it but it is there: with the definition that it has there."""
    if wanted.statement is not None:
        return wanted
    for key in (("constraint", wanted.identity), ("index", unique_index.index_of(wanted.change).identity)):
        if definition := wanted.live.get(key):
            return replace(wanted, change=Change(*key, None, index_state(definition)[0]))
    return wanted


def _objections(
    site: Site, wanted: Subject, scene: deduplicate.Scene, option: str, mask: bool
) -> tuple[Objection, ...]:
    """What speaks against the values that an option would write."""
    acts = deduplicate.acts(option, scene, live=wanted.live, keeper=wanted.keeper)
    offers = [offer for act in acts if (offer := deduplicate.proposal(act, scene))]
    with site.target.reading(site.run_id) as conn:
        found = [
            objection
            for offer in offers
            for objection in proposals.objections(conn, offer, timeout_ms=duplicate_rows.PATIENCE_MS, mask=mask)
        ]
        if option in ("merge", "keep_newest"):
            found += duplicate_rows.circles(conn, deduplicate.turned(scene, option))
    return tuple(found)


def plan(diagnosis: Diagnosis, *, option: str, **_: Any) -> Plan:
    """The steps of one option; without one named, of the one that loses nothing: `suffix` where its values fit, `build`, `setval`.

    Raises: InvalidParameter for an unknown option; Refused where the named one is not possible; WrongDatabase unless env.py was
    proven to lead to the target.
    """
    if option and option not in OPTIONS:
        raise InvalidParameter(
            f"option is {option!r}. Nothing was changed. Write one of {', '.join(OPTIONS)}, or leave it empty."
        )
    facts: Facts | Behind = diagnosis.facts
    ways = [unique_ways.setval(facts)]
    if isinstance(facts, Facts):
        surroundings.require_same_database(diagnosis)
        ways = [*(unique_ways.deduplicated(facts, one) for one in deduplicate.OPTIONS), unique_ways.build(facts), *ways]
    ways.append(unique_ways.stop(facts))
    chosen = option or _by_itself(facts, ways)
    choice, steps, further = next((way for way in ways if way[0].option == chosen), ways[-1])
    if option and not choice.possible:
        possible = ", ".join(c.option for c, _, _ in ways if c.possible)
        raise Refused(f"{option} is not possible: {choice.why_not}. Nothing was changed. Possible: {possible}.")
    unchecked = (f"{c.question} Could not check: {c.why}" for c in diagnosis.checks if c.verdict == "could_not_check")
    options = tuple(c for c, _, _ in ways)
    return Plan(SLUG, {}, diagnosis.evidence, chosen or "none", options, steps, further, tuple(unchecked))


def _by_itself(facts: Facts | Behind, ways: Sequence[unique_ways.Way]) -> str:
    """The option that may be chosen without being named: nothing is lost by it, and there is something to do."""
    shared = isinstance(facts, Facts) and bool(facts.groups)
    left = isinstance(facts, Facts) and bool(facts.making.clear)
    needed = {"suffix": shared, "build": left, "setval": bool(facts.behind.behind) and not shared}
    return next((c.option for c, _, _ in ways if c.possible and needed.get(c.option)), "")


def verify_with(made: Plan) -> Mapping[str, Any]:
    """The parameters for looking again: the same key, whatever is pending now."""
    for identity, definition in made.evidence.get("wanted", {}).items():
        change = Change("index" if definition.startswith("CREATE") else "constraint", identity, None, definition)
        key = violations.uniqueness(change)
        by_hand = key is not None and not made.evidence["revision"]  # no revision says it, and no index stands yet
        return {
            "revision": made.evidence["revision"] or "",
            "table": unique_index.index_of(change).table,
            "columns": ", ".join(key.keys) if key and by_hand else "",
            "constraint": names.unquoted(names.last(identity)),
            "option": "",
        }
    return {}


def unmet(made: Plan, again: Diagnosis) -> Sequence[str]:
    """What the plan promised and a new diagnosis does not find."""
    facts: Facts | Behind = again.facts
    if made.chosen == "setval":
        return [
            f"{one.sequence} is behind still"
            for one in facts.behind.behind
            if one.sequence in made.evidence["sequences"]
        ]
    if isinstance(facts, Behind):
        return ["the key is not known any more"]
    problems = []
    if facts.groups or facts.found.sizes.why:
        problems.append(facts.found.sizes.why or f"{facts.groups} values stand in more than one row")
    wanted = facts.subject
    built = any(expect.definition == wanted.definition for step in made.steps for expect in step.after)
    if built and wanted.standing() != wanted.definition:
        problems.append(f"{wanted.identity} is {wanted.standing() or 'not there'}")
    record = f"record revision {made.evidence['revision']}".lower()
    recorded = any(record in step.says.lower() for step in made.steps)
    if recorded and wanted.facts and not wanted.facts.stamped:
        problems.append(f"the version row is not {made.evidence['revision']}")
    return problems

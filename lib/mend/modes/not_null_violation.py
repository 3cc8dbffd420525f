"""A column is to be NOT NULL, and there are rows without a value: which, who writes them, and the ways out.

`plan` fills the rows in batches, then guards the column, fills what came meanwhile, and makes it NOT NULL without a scan that blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mend.batches import deletion, rows
from mend.batches.repair import Repair
from mend.change import weights
from mend.constraints import null_rows, nulls
from mend.constraints.null_rows import Facts
from mend.database import names
from mend.database.catalog import Change
from mend.diagnosis import Check, Diagnosis, Site
from mend.errors import InvalidParameter, NotInvertible, Refused
from mend.plan import Choice, Plan, Step
from mend.repairs import subject, surroundings

SLUG = "not_null_violation"
OPTIONS = ("backfill", "delete", "stop")


def diagnose(site: Site, *, revision: str, table: str, columns: str, fill: str, mask: bool, **given: Any) -> Diagnosis:
    """Look at the rows without a value, and at what could be written into them.

    Parameters
    ----------
    revision : the revision that wants the column NOT NULL; empty: the next that is pending
    table, columns : the column; empty: the one that the revision wants
    fill : an SQL expression over the row; empty: the column's default, as it is or as the revision sets it

    Returns
    -------
    Diagnosis with the checks environment, nulls, rows, writers, guards, dependents, values, sessions.

    Reads: the catalogs, the version tables, the table.  Writes: nothing.
    Raises: InvalidParameter, ProjectBroken, RevisionNotFound, ReplayFailed.
    """
    wanted = subject.find(
        site, "not_null", revision=revision, table=table, columns=columns,
        otherwise=lambda owner, named: Change("not_null", f"{owner}.{named[0]}", None, "not null"),
    )  # fmt: skip
    if wanted is None:
        return Diagnosis((null_rows.nothing_wanted(),), {"revision": None, "wanted": {}})
    facts = null_rows.look(site, wanted, fill, given)
    questions: tuple[Callable[[], Check], ...] = (
        partial(surroundings.environment, site, wanted.facts),
        partial(null_rows.nulls_left, facts),
        partial(null_rows.sample, site, facts, mask),
        partial(null_rows.writers, site, facts),
        partial(null_rows.guards, site, facts),
        partial(null_rows.dependents, facts),
        partial(null_rows.values, facts),
        partial(surroundings.sessions, site, [wanted.table]),
    )
    evidence = wanted.evidence() | {
        "rows_at_most": int(given["at_most"]) or weights.ceiling(facts.rows),
        "fill": facts.fill.text if facts.fill else "",
    }
    return Diagnosis(tuple(surroundings.timed(ask) for ask in questions), evidence, facts, null_rows.preventions(facts))


def plan(diagnosis: Diagnosis, *, option: str, **_: Any) -> Plan:
    """The steps of one option; without one named, `backfill` where it is known what to write and every value may be written.

    Raises: InvalidParameter for an unknown option; Refused where the named one is not possible; WrongDatabase unless env.py was
    proven to lead to the target.
    """
    if option and option not in OPTIONS:
        raise InvalidParameter(
            f"option is {option!r}. Nothing was changed. Write one of {', '.join(OPTIONS)}, or leave it empty."
        )
    facts: Facts | None = diagnosis.facts
    if facts is None or facts.subject.standing() == "not null":
        return _plan(diagnosis, "none", (), (), "Nothing is to be mended: run alembic upgrade.")
    surroundings.require_same_database(diagnosis)
    ways = [_backfill(facts, diagnosis.evidence), _delete(facts, diagnosis.evidence), _stop()]
    chosen = option or next(choice.option for choice, _, _ in ways if choice.possible and choice.option != "delete")
    choice, steps, further = next(way for way in ways if way[0].option == chosen)
    if not choice.possible:
        raise Refused(f"{option} is not possible: {choice.why_not}. Nothing was changed.")
    return _plan(diagnosis, chosen, tuple(c for c, _, _ in ways), steps, further)


Way = tuple[Choice, tuple[Step, ...], str]


def _plan(
    diagnosis: Diagnosis, chosen: str, options: tuple[Choice, ...], steps: tuple[Step, ...], further: str
) -> Plan:
    unchecked = tuple(
        f"{c.question} Could not check: {c.why}" for c in diagnosis.checks if c.verdict == "could_not_check"
    )
    return Plan(SLUG, {}, diagnosis.evidence, chosen, options, steps, further, unchecked)


def _stop() -> Way:
    choice = Choice("stop", "Change nothing, and report", "the migration stays where it is")
    return choice, (), "Say what to write with the parameter fill, or choose the option delete."


def _backfill(facts: Facts, evidence: Mapping[str, Any]) -> Way:
    says = "Write a value into every row that has none, in short batches, then make the column NOT NULL"
    costs = "the old NULLs are kept in schema mend; the table grows by about as many row versions as are filled"
    why_not = (
        "it is not known what to write; say it with the parameter fill"
        if facts.fill is None
        else "; ".join(filter(None, [facts.lacks("update"), *(one.says for one in facts.objections)]))
    )
    if why_not or facts.fill is None:
        return Choice("backfill", says, costs, False, why_not), (), ""
    fill = facts.fill.text

    def repaired(n: int, until_none: bool) -> tuple[Step, ...]:
        repair = _repair(facts, evidence, n, until_none=until_none)
        wanted = replace(repair, action="update", values={facts.column: fill})
        words = f"Fill {facts.subject.identity} with {fill}" + ("" if n == 1 else ", where rows came meanwhile")
        return (
            rows.step(
                wanted,
                says=words,
                live=facts.subject.live,
                keeper=facts.subject.keeper,
                rows_expected=facts.rows if n == 1 else 0,
            ),
        )

    return Choice("backfill", says, costs), *_finished(facts, repaired)


def _delete(facts: Facts, evidence: Mapping[str, Any]) -> Way:
    says = "Delete every row that has no value, in short batches, then make the column NOT NULL"
    costs = "those rows, and what hangs on them (see the table of dependents); all are kept in schema mend"
    ceilings = {one.table: weights.ceiling(count.best) for one, count in facts.dependents}

    def repaired(n: int, until_none: bool) -> tuple[Step, ...]:
        wanted = _repair(facts, evidence, n, until_none=until_none)
        words = "" if n == 1 else ", where rows came meanwhile"
        return tuple(
            rows.step(
                one,
                says=f"{'Delete rows of' if one.action == 'delete' else 'Let go'} {one.table}{words}",
                live=facts.subject.live,
                keeper=facts.subject.keeper,
            )
            for one in deletion.deletion(wanted, live=facts.subject.live, ceilings=ceilings, strict=False)
        )

    stay = [
        f"{count.says} rows of {one.table} refer to them ({one.identity}), and must stay"
        for one, count in facts.dependents
        if one.on_delete not in ("CASCADE", "SET NULL") and (count.best or not count.exact)
    ]
    if why_not := facts.lacks("delete") or "; ".join(stay):
        return Choice("delete", says, costs, False, why_not), (), ""
    try:
        return Choice("delete", says, costs), *_finished(facts, repaired)
    except (NotInvertible, Refused) as error:
        return Choice("delete", says, costs, False, error.message), (), ""


def _repair(facts: Facts, evidence: Mapping[str, Any], n: int, *, until_none: bool) -> Repair:
    return Repair(
        job=f"{facts.subject.keeper.key}_{n}",
        table=facts.subject.table,
        action="delete",
        where=facts.where,
        at_most=int(evidence["rows_at_most"]),
        until_none=until_none,
        workers=int(facts.given["workers"]),
        batch_ms=int(facts.given["batch_ms"]),
    )


def _finished(facts: Facts, repaired: Callable[[int, bool], tuple[Step, ...]]) -> tuple[tuple[Step, ...], str]:
    """Repair, guard, repair what came meanwhile, prove; then the rest of the revision where it can be finished here."""
    wanted = facts.subject
    making = nulls.making(
        wanted.table, facts.column, live=wanted.live, keeper=wanted.keeper, major=facts.major, named=facts.constraint
    )
    again = repaired(2, True) if making.guard else ()
    safe = (*repaired(1, not making.guard), *making.guard, *again, *making.proof)
    steps, why_not = subject.finish(wanted, safe)
    if not why_not:
        return steps, f"Then: {facts.subject.upgrade}."
    return (
        safe,
        f"The revision is not finished here ({why_not}). Then: {facts.subject.upgrade}. It finds the column NOT NULL already, and goes on.",
    )


def verify_with(made: Plan) -> Mapping[str, Any]:
    """The parameters for looking again: the same column, whatever is pending now."""
    identity = next(iter(made.evidence["wanted"]), "")
    return {
        "revision": made.evidence["revision"] or "",
        "table": names.parent(identity) if identity else "",
        "columns": names.last(identity) if identity else "",
        "fill": made.evidence.get("fill", ""),
    }


def unmet(made: Plan, again: Diagnosis) -> Sequence[str]:
    """What the plan promised and a new diagnosis does not find."""
    facts: Facts | None = again.facts
    if facts is None:
        return ("the column is not known any more",)
    problems = []
    if facts.count.rows != 0:
        problems.append(
            f"rows without a value: {facts.count.rows if facts.count.rows is not None else facts.count.why}"
        )
    if facts.subject.standing() != "not null":
        problems.append(f"{facts.subject.identity} is {facts.subject.standing() or 'nullable'}")
    recorded = any(
        made.evidence["revision"] and f"record revision {made.evidence['revision']}" in step.says.lower()
        for step in made.steps
    )
    if recorded and facts.subject.facts and not facts.subject.facts.stamped:
        problems.append(f"the version row is not {made.evidence['revision']}")
    return problems

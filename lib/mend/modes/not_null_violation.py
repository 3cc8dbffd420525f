"""A column is to be NOT NULL, and there are rows without a value: which, who writes them, and the ways out.

`plan` fills the rows in batches, then guards the column, fills what came meanwhile, and makes it NOT NULL without a scan that blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd

from mend import (
    counting,
    deletion,
    expressions,
    masking,
    names,
    nulls,
    proposals,
    queries,
    rows,
    subject,
    surroundings,
    weights,
)
from mend.catalog import Change
from mend.counting import Count
from mend.deletion import Reference
from mend.diagnosis import Check, Diagnosis, Prevention, Site
from mend.errors import InvalidParameter, NotInvertible, Refused
from mend.expressions import Expression
from mend.plan import Choice, Plan, Step
from mend.proposals import Objection, Proposal
from mend.repair import Repair
from mend.subject import Subject

SLUG = "not_null_violation"
OPTIONS = ("backfill", "delete", "stop")
_SAMPLE, _LATEST = 20, 1000


@dataclass(frozen=True)
class Facts:
    """Everything that a plan is made from."""

    subject: Subject
    count: Count
    fill: Expression | None
    objections: tuple[Objection, ...]
    dependents: tuple[tuple[Reference, Count], ...]
    constraint: str  # the NOT NULL constraint that is NOT VALID, by name
    major: int
    given: Mapping[str, Any]

    @property
    def column(self) -> str:
        """The column's quoted name."""
        return self.subject.columns[0]

    @property
    def where(self) -> str:
        """What is true of a row that must be repaired."""
        return f"t.{self.column} is null"

    @property
    def rows(self) -> int:
        """How many rows those are, or are estimated to be."""
        return self.count.best

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """What else the journal keeps: the operations of the revision that wants it."""
        return self.subject.facts.tables() if self.subject.facts else {}


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
        return _nothing_wanted()
    facts = _facts(site, wanted, fill, given)
    questions: tuple[Callable[[], Check], ...] = (
        partial(surroundings.environment, site, wanted.facts),
        partial(_nulls, facts),
        partial(_rows, site, facts, mask),
        partial(_writers, site, facts),
        partial(_guards, site, facts),
        partial(_dependents, facts),
        partial(_values, facts),
        partial(surroundings.sessions, site, [wanted.table]),
    )
    evidence = wanted.evidence() | {
        "rows_at_most": int(given["at_most"]) or weights.ceiling(facts.rows),
        "fill": facts.fill.text if facts.fill else "",
    }
    return Diagnosis(tuple(surroundings.timed(ask) for ask in questions), evidence, facts, _preventions(facts))


def _nothing_wanted() -> Diagnosis:
    check = Check(
        "diagnosis",
        "Which column is to be NOT NULL?",
        "healthy",
        "No pending revision makes a column NOT NULL, and none was named.",
        "There is none.",
    )
    return Diagnosis((check,), {"revision": None, "wanted": {}})


def _facts(site: Site, wanted: Subject, fill: str, given: Mapping[str, Any]) -> Facts:
    column = wanted.columns[0]
    text = fill or _default(wanted)
    with site.target.reading(site.run_id) as conn:
        count = counting.of_table(conn, wanted.table, f"t.{column} is null")
        checked = expressions.checked(conn, text, table=wanted.table, column=column) if text else None
        objections = (
            proposals.objections(
                conn,
                Proposal(wanted.table, {column: checked.text}, where=f"t.{column} is null", not_null=[column]),
            )
            if checked
            else ()
        )
        dependents = tuple(
            (one, counting.of_table(conn, one.table, one.among(deleted))) for one, deleted in _pointing(wanted)
        )
        guards = queries.frame(
            conn, "not_null_violation/guards", relation=wanted.table, attribute=names.unquoted(column)
        )
    own = guards[(guards["kind"] == "NOT NULL") & ~guards["validated"].astype(bool)]["constraint_name"]
    return Facts(
        wanted,
        count,
        checked,
        tuple(objections),
        dependents,
        str(next(iter(own), "")),
        site.identity.version_num // 10000,
        given,
    )


def _pointing(wanted: Subject) -> list[tuple[Reference, Repair]]:
    """The foreign keys that point at the rows without a value, or at rows that would be deleted with them."""
    found: list[tuple[Reference, Repair]] = []
    waiting = [Repair("look", wanted.table, "delete", where=f"t.{wanted.columns[0]} is null")]
    while waiting and len(found) < _SAMPLE:
        deleted = waiting.pop(0)
        for one in deletion.references(deleted.table, wanted.live):
            found.append((one, deleted))
            if one.on_delete == "CASCADE" and one.table not in (deleted.table, wanted.table):
                waiting.append(Repair("look", one.table, "delete", where=one.among(deleted)))
    return found


def _default(wanted: Subject) -> str:
    """What the column gets where nothing is said: as the revision will have it, else as it is."""
    identity = wanted.identity
    seen = wanted.facts.seen if wanted.facts else ()
    later = [c.after for one in seen for c in one.statement.changes if (c.kind, c.identity) == ("default", identity)]
    return (later[-1] if later else wanted.live.get(("default", identity))) or ""


def _nulls(facts: Facts) -> Check:
    """How many rows have no value?"""
    count = facts.count
    asks = partial(
        Check,
        name="nulls",
        question="How many rows have no value?",
        healthy_when=f"There are 0 rows where {facts.column} is null.",
        frame=pd.DataFrame(
            [{"table": facts.subject.table, "column": facts.column, "rows": count.rows, "estimate": count.estimate}]
        ),
        sql=f"select count(*) from {facts.subject.table} as t where {facts.where}",
    )
    if count.rows is None:
        return asks(verdict="could_not_check", says=f"{count.says}.", why=count.why)
    return asks(verdict="found" if count.rows else "healthy", says=f"{count.says} rows.")


def _rows(site: Site, facts: Facts, mask: bool) -> Check:
    """Which rows are they?"""
    key = facts.subject.keeper.primary_keys.get(facts.subject.table, ())
    sql = f"select t.* from {facts.subject.table} as t where {facts.where} limit {_SAMPLE}"
    frame, why = _asked(site, sql)
    return Check(
        "rows",
        "Which rows are they?",
        "could_not_check" if why else "found" if len(frame) else "healthy",
        f"{len(frame)} of them are shown{', their content masked' if mask else ''}." if len(frame) else "None seen.",
        "There are 0.",
        masking.masked(frame, keys=[names.unquoted(one) for one in key], mask=mask),
        sql,
        why and f"the question {why}",
    )


def _writers(site: Site, facts: Facts) -> Check:
    """Who still writes NULL?"""
    wanted = facts.subject
    key = wanted.keeper.primary_keys.get(wanted.table, ())
    asks = partial(
        Check,
        name="writers",
        question="Does the application still write NULL?",
        healthy_when=f"Of the {_LATEST:,} rows with the highest keys, 0 have no value.",
    )
    if not key:
        return asks(
            verdict="could_not_check",
            says="Nobody can tell.",
            why=f"{wanted.table} has no primary key to tell new rows by",
        )
    newest = f"select t.{facts.column} as value from {wanted.table} as t order by {', '.join(f't.{one} desc' for one in key)} limit {_LATEST}"
    sql = f"select count(*) as latest_rows, count(*) - count(value) as without_value from ({newest}) as n"
    frame, why = _asked(site, sql)
    if why:
        return asks(verdict="could_not_check", says="Nobody can tell.", why=f"the question {why}", sql=sql)
    without, latest = int(frame["without_value"].iloc[0]), int(frame["latest_rows"].iloc[0])
    default = wanted.live.get(("default", wanted.identity), "")
    says = f"Of the newest {latest:,} rows, {without:,} have no value; the column's default is {default or 'none'}."
    return asks(verdict="found" if without else "healthy", says=says, frame=frame, sql=sql)


def _guards(site: Site, facts: Facts) -> Check:
    """Does a constraint guard the column already?"""
    with site.target.reading(site.run_id) as conn:
        frame = queries.frame(
            conn,
            "not_null_violation/guards",
            relation=facts.subject.table,
            attribute=names.unquoted(facts.column),
        )
    waiting = frame[~frame["validated"].astype(bool)]
    says = (
        f"{len(waiting)} of {len(frame)} is NOT VALID: an update of a row without a value fails, whatever it changes."
        if len(waiting)
        else f"{len(frame)} constraints, all validated."
        if len(frame)
        else "None yet."
    )
    return Check(
        "guards",
        "Does a constraint guard the column already?",
        "found" if len(waiting) else "healthy",
        says,
        "There are 0 constraints that are NOT VALID: with one, the application's updates of the rows above fail.",
        frame,
        frame.attrs["sql"],
    )


def _dependents(facts: Facts) -> Check:
    """What would go with these rows if they were deleted?"""
    columns = ["table", "constraint", "on_delete", "rows", "estimate"]
    asks = partial(
        Check,
        name="dependents",
        question="What would go with these rows if they were deleted?",
        healthy_when="There are 0 rows that reference them. It matters only for the option delete.",
    )
    found = [
        {"table": one.table, "constraint": one.identity, "on_delete": one.on_delete, "rows": count.rows, "estimate": count.estimate}
        for one, count in facts.dependents
    ]  # fmt: skip
    some = [f"{one.table} ({count.says})" for one, count in facts.dependents if count.best or not count.exact]
    says = f"Rows of {', '.join(some)} refer to them." if some else "Nothing refers to them."
    return asks(verdict="found" if some else "healthy", says=says, frame=pd.DataFrame(found, columns=columns))


def _values(facts: Facts) -> Check:
    """What would be written?"""
    asks = partial(
        Check,
        name="values",
        question="What would be written, and may it be?",
        healthy_when="Every value fits: not null, not too long, and no constraint of the column is broken by it.",
    )
    if facts.fill is None:
        return asks(
            verdict="found", says="Nothing yet: the column has no default. Say what to write with the parameter fill."
        )
    frame = pd.DataFrame(
        [{"objection": one.says, "rows": one.rows} for one in facts.objections], columns=["objection", "rows"]
    )
    says = f"{facts.fill.text} ({facts.fill.type})" + (
        f", and {len(frame)} objections." if len(frame) else ", and every value fits."
    )
    return asks(verdict="found" if len(frame) else "healthy", says=says, frame=frame)


def _asked(site: Site, sql: str) -> tuple[pd.DataFrame, str]:
    """The answer to a composed question, and why there is none."""
    with site.target.reading(site.run_id) as conn:
        answer = counting.ask(conn, sql)
    return pd.DataFrame(list(answer.rows), columns=list(answer.columns)), answer.why


def _preventions(facts: Facts) -> tuple[Prevention, ...]:
    table, column = facts.subject.table, facts.column
    return (
        Prevention(
            f"Split it over three releases: the application writes {column} always (or the column gets a default); the old rows "
            "are filled outside the migration; then the rule. Never fill inside upgrade(): one long transaction."
        ),
        Prevention(
            f"Make the rule without a scan under ACCESS EXCLUSIVE: ALTER TABLE {table} ADD CONSTRAINT ... CHECK ({column} IS NOT NULL) "
            "NOT VALID; VALIDATE CONSTRAINT in a transaction of its own; then SET NOT NULL, and drop the check."
        ),
    )


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
        else "; ".join(one.says for one in facts.objections)
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
    if stay:
        return Choice("delete", says, costs, False, "; ".join(stay)), (), ""
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
        return steps, _upgrade(facts)
    return (
        safe,
        f"The revision is not finished here ({why_not}). {_upgrade(facts)} It finds the column NOT NULL already, and goes on.",
    )


def _upgrade(facts: Facts) -> str:
    if facts.subject.facts is None:
        return "Then: alembic upgrade head."
    past = facts.subject.facts.past
    ini = facts.subject.facts.project.alembic_ini
    return f"Then: alembic -c {ini} upgrade {'heads' if len(past.heads) > 1 else 'head'}."


def verify_with(made: Plan) -> Mapping[str, Any]:
    """The parameters for looking again: the same column, whatever is pending now."""
    identity = next(iter(made.evidence["wanted"]), "")
    return {
        "revision": made.evidence["revision"] or "",
        "table": names.parent(identity) if identity else "",
        "columns": names.last(identity) if identity else "",
        "fill": "",
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

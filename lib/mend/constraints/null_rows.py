"""Rows that have no value in a column which is to be NOT NULL: which, how many, who still writes them, what could be written.  Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from mend.batches import deletion
from mend.batches.deletion import Reference
from mend.batches.repair import Repair
from mend.constraints import proposals
from mend.constraints.proposals import Objection, Proposal
from mend.database import names, queries
from mend.diagnosis import Check, Prevention, Site
from mend.repairs.subject import Subject
from mend.values import counting, expressions, masking
from mend.values.counting import Count
from mend.values.expressions import Expression

_SAMPLE, _LATEST = 20, 1000


@dataclass(frozen=True)
class Facts:
    """Everything that a plan is made from."""

    subject: Subject
    count: Count
    fill: Expression | None
    objections: tuple[Objection, ...]
    dependents: tuple[tuple[Reference, Count], ...]
    privileges: Mapping[str, Mapping[Any, Any]]  # of the role, by table
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

    def lacks(self, action: str) -> str:
        """The privilege that an update or a delete of the rows, or making the column NOT NULL, would fail for; ''."""
        table = self.subject.table
        if not self.privileges[table]["owns"]:
            return f"the role does not own {table}, so it may not make {self.column} NOT NULL"
        along = {one.table: "delete" if one.on_delete == "CASCADE" else "update" for one, _ in self.dependents}
        wanted = {**(along if action == "delete" else {}), table: action}
        missing = [f"{what} rows of {one}" for one, what in wanted.items() if not self.privileges[one][f"may_{what}"]]
        return f"the role may not {', '.join(missing)}" if missing else ""

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """What else the journal keeps: the operations of the revision that wants it."""
        return self.subject.facts.tables() if self.subject.facts else {}


def nothing_wanted() -> Check:
    """Nobody asks for NOT NULL."""
    return Check(
        "diagnosis",
        "Which column is to be NOT NULL?",
        "healthy",
        "No pending revision makes a column NOT NULL, and none was named.",
        "There is none.",
    )


def look(site: Site, wanted: Subject, fill: str, given: Mapping[str, Any]) -> Facts:
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
        relations = [wanted.table, *(one.table for one, _ in dependents)]
        held = queries.frame(conn, "subject/privileges", relations=list(dict.fromkeys(relations)))
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
        {str(row["relation"]): row for row in held.to_dict("records")},
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


def nulls_left(facts: Facts) -> Check:
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


def sample(site: Site, facts: Facts, mask: bool) -> Check:
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


def writers(site: Site, facts: Facts) -> Check:
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


def guards(site: Site, facts: Facts) -> Check:
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


def dependents(facts: Facts) -> Check:
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


def values(facts: Facts) -> Check:
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


def preventions(facts: Facts) -> tuple[Prevention, ...]:
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

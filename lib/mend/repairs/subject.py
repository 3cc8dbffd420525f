"""Which constraint is wanted, and by whom: named by the operator, or found in the project's pending revision.

The runbooks of the three constraint violations begin here.  `find` reads; the rest is pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mend.database import catalog, names, parameters, queries
from mend.database.catalog import Change
from mend.diagnosis import Site
from mend.errors import InvalidParameter, QueryFailed
from mend.journal import sha256
from mend.plan import Step
from mend.repairs import halfway, steps, violations, ways
from mend.repairs.halfway import Facts, Seen
from mend.repairs.steps import Facets, Keeper
from mend.values import counting

Kind = Literal["not_null", "unique", "foreign_key"]


@dataclass(frozen=True)
class Subject:
    """A constraint that is wanted on a table that is there.

    ``columns``: quoted, as the catalog prints them; those of a unique index may be expressions.  ``facts`` and ``statement``:
    the pending revision that makes it, and its statement there; None where the project does not, or none was named.
    ``others``: what else of that revision rows are in the way of, so that it cannot be finished with this constraint alone.
    """

    kind: Kind
    table: str
    columns: tuple[str, ...]
    change: Change
    live: Facets
    keeper: Keeper
    facts: Facts | None = None
    statement: Seen | None = None
    others: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """``public.t.uq`` of a constraint, ``public.ix`` of an index, ``public.t.c`` of NOT NULL."""
        return self.change.identity

    @property
    def definition(self) -> str:
        """As the catalog will print it: pg_get_constraintdef, pg_get_indexdef, or ``not null``."""
        return self.change.after or ""

    def standing(self) -> str | None:
        """The definition that stands in the catalog now, with INVALID or NOT VALID where it is so; None: it is not there."""
        return self.live.get((self.change.kind, self.identity))

    def evidence(self) -> dict[str, Any]:
        """What a plan's digest covers: the constraint, every object of its table, and what the revision's replay covers."""
        found = halfway.evidence(self.facts) if self.facts else {"revision": None, "objects": {}}
        about = {
            f"{kind} {identity}": text
            for (kind, identity), text in sorted(self.live.items())
            if self.table in (identity, halfway.relation_of(Change(kind, identity, None, text)))
        }
        return found | {"objects": {**found["objects"], **about}, "wanted": {self.identity: self.definition}}

    @property
    def upgrade(self) -> str:
        """The command that finishes the migration."""
        return self.facts.past.upgrade if self.facts else "alembic upgrade head"

    def obstacle(self) -> violations.Obstacle:
        """The question whose answer must be empty before the constraint can be made.  Raises: InvalidParameter."""
        found = violations.obstacle(self.change, self.live)
        if found is None:
            raise InvalidParameter(
                f"{self.identity} ({self.definition}) is no constraint that rows can break in a way that is known here. Nothing was changed."
            )
        return found


def find(
    site: Site,
    kind: Kind,
    *,
    revision: str = "",
    table: str = "",
    columns: str = "",
    constraint: str = "",
    otherwise: Callable[[str, tuple[str, ...]], Change] | None = None,
) -> Subject | None:
    """The constraint in question.

    Parameters
    ----------
    revision : the revision that wants it; empty: the next one that is pending
    table, columns, constraint : narrow it down; names as in an error message, or quoted. ``columns``: comma separated
    otherwise : (table, columns) -> the change that is wanted where no pending revision makes it; None: then there is none

    Returns
    -------
    Subject, or None where nothing was named and nothing that is pending wants such a constraint.

    Reads: the catalogs; with a project, its replay; rows, where several constraints are wanted.  Writes: nothing.
    Raises: InvalidParameter, ProjectBroken, RevisionNotFound, ReplayFailed.
    """
    facts = halfway.look(site, site.project, revision=revision, data_operations="") if site.project else None
    live = facts.live if facts else snapshot(site)
    named = relation(site, table) if table else ""
    wanted = named_columns(columns, named, live) if columns and named else ()
    found = [
        (one, change)
        for one in (facts.seen if facts else ())
        for change in one.statement.changes
        if _is(kind, change) and _fits(kind, change, named, wanted, constraint)
    ]
    keeper = _keeper(site, kind, facts, live, f"{named} {wanted}")
    if found:
        seen, change = _first_with_rows(site, kind, found, live)
        return Subject(kind, *_about(kind, change), change, live, keeper, facts, seen, _others(site, facts, change))
    if not (named and wanted):
        if table or columns or constraint:
            raise InvalidParameter(
                f"No pending revision makes such a constraint ({constraint or table or columns}). Nothing was changed. Name table and columns both, or the revision that makes it."
            )
        return None
    if otherwise is None:
        return None
    change = otherwise(named, wanted)
    return Subject(kind, *_about(kind, change), change, live, keeper, facts)


def finish(subject: Subject, safe: Sequence[Step]) -> tuple[tuple[Step, ...], str]:
    """The steps that finish the revision, with ``safe`` in place of its own statement; its version row is recorded last.

    Returns ``(steps, "")``, or ``((), why)`` where the revision must be finished by Alembic itself: it would then make the constraint
    a second time, so ``safe`` must not make it either.  Without a revision that wants it, ``safe`` alone.
    """
    if subject.facts is None or subject.statement is None:
        return tuple(safe), ""
    if subject.others:
        return (), f"rows are in the way of more than this: {'; '.join(subject.others)}"
    return ways.finishing(subject.facts, subject.statement, safe)


def relation(site: Site, name: str) -> str:
    """The qualified, quoted name of a table, from a name as an operator or an error message writes it.

    Raises: InvalidParameter where there is none, or more than one.
    """
    parts = [names.unquoted(part) for part in names.split(name.strip())]
    if not 1 <= len(parts) <= 2 or not all(parts):
        raise InvalidParameter(f"table is {name!r}. Nothing was changed. Write name or schema.name.")
    schema = parts[0] if len(parts) == 2 else ""
    with site.target.reading(site.run_id) as conn:
        frame = queries.frame(conn, "subject/relations", schema=schema, name=parts[-1])
    frame = frame[frame["visible"]] if frame["visible"].any() and not schema else frame
    if len(frame) != 1:
        there = f"there are {len(frame)}: {', '.join(frame['identity'])}" if len(frame) else "there is none"
        raise InvalidParameter(
            f"Which table is {name!r}? In this database {there}. Nothing was changed. Write it as schema.name."
        )
    if frame["kind"].iloc[0] not in ("r", "p"):
        raise InvalidParameter(
            f"{frame['identity'].iloc[0]} is a view or a foreign table. Nothing was changed. Name the table whose rows are meant."
        )
    return str(frame["identity"].iloc[0])


def named_columns(text: str, table: str, live: Facets) -> tuple[str, ...]:
    """The quoted columns of a table, from a comma separated text; an expression stays as it is.

    Raises: InvalidParameter naming the columns that there are.
    """
    there = columns_of(table, live)
    found = []
    for item in names.items(f"({text})"):
        same = [
            name
            for name in there
            if item == name or names.unquoted(item) == names.unquoted(name) or item == names.unquoted(name)
        ]
        if not same and "(" not in item:
            raise InvalidParameter(f"{table} has no column {item!r}. Nothing was changed. It has: {', '.join(there)}.")
        found.append(same[0] if same else item)
    return tuple(found)


def columns_of(table: str, live: Facets) -> dict[str, str]:
    """Quoted column -> type definition, those of its parents included."""
    found: dict[str, str] = {}
    for kind in ("partition", "inherits"):
        for parent in filter(None, _parents(live.get((kind, table), ""))):
            found |= columns_of(parent, live)
    own = {
        names.last(identity): text
        for (kind, identity), text in live.items()
        if kind == "column" and names.parent(identity) == table
    }
    return found | own


def _parents(definition: str) -> Iterable[str]:
    return definition.split(" FOR VALUES")[0].split(" DEFAULT")[0].split(", ")


def snapshot(site: Site) -> Facets:
    """The catalog as it stands."""
    with site.target.reading(site.run_id) as conn:
        return catalog.facets(catalog.snapshot(conn))


def _keeper(site: Site, kind: Kind, facts: Facts | None, live: Facets, said: str) -> Keeper:
    """New for every plan: the run that was applied last is part of its key."""
    key = sha256(f"{facts.keeper.key if facts else ''} {kind} {said} {site.last_run}")[:16]
    return Keeper(site.target.settings.schema_name, key, steps.primary_keys(live))


def _is(kind: Kind, change: Change) -> bool:
    """Whether a change makes a constraint of that kind."""
    if change.after is None:
        return False
    if kind == "not_null":
        return change.kind == "not_null"
    if kind == "foreign_key":
        return change.kind == "constraint" and change.after.startswith("FOREIGN KEY")
    keys = change.kind == "constraint" and change.after.startswith(("UNIQUE", "PRIMARY KEY"))
    return keys or (change.kind == "index" and change.after.startswith("CREATE UNIQUE INDEX"))


def _fits(kind: Kind, change: Change, table: str, columns: tuple[str, ...], constraint: str) -> bool:
    """Whether a wanted constraint is the one that the operator named."""
    about, own = _about(kind, change)
    if table and about != table:
        return False
    if columns and {_bare(one) for one in own} != {_bare(one) for one in columns}:
        return False
    return (
        not constraint
        or kind == "not_null"
        or names.unquoted(names.last(change.identity)) == names.unquoted(constraint)
    )


def _bare(expression: str) -> str:
    """A column or expression without parentheses and spaces: an error message prints them otherwise than the catalog.

    >>> _bare("lower((email)::text)") == _bare("lower(email::text)")
    True
    """
    return expression if expression.startswith('"') else re.sub(r"[()\s]", "", expression)


def _about(kind: Kind, change: Change) -> tuple[str, tuple[str, ...]]:
    """The table and the columns (or expressions) of a constraint."""
    if kind == "not_null":
        return names.parent(change.identity), (names.last(change.identity),)
    table = halfway.relation_of(change)
    definition = catalog.index_state(change.after or "")[0]
    group = next((piece for piece in names.pieces(definition) if piece.startswith("(")), "()")
    return table, tuple(violations.key_items(group))


def _others(site: Site, facts: Facts | None, change: Change) -> tuple[str, ...]:
    """What else the revision wants, and rows are in the way of or may be: that could not be asked in time."""
    found = []
    with site.target.reading(site.run_id) as conn:
        for one in facts.obstacles() if facts else []:
            if one.identity != change.identity:
                answer = counting.ask(conn, one.sql)
                if answer.rows or answer.why:
                    says = (
                        f"{one.says} ({parameters.pointer(one.slug)})" if answer.rows else f"the question {answer.why}"
                    )
                    found.append(f"{one.identity}: {says}")
    return tuple(found)


def _first_with_rows(site: Site, kind: Kind, found: Sequence[tuple[Seen, Change]], live: Facets) -> tuple[Seen, Change]:
    """Of several, the first that rows stand in the way of; where there is none, the first that is missing."""
    missing = [(seen, change) for seen, change in found if seen.ran is not True] or list(found)
    if len(missing) > 1:
        there = {(kind_, identity) for kind_, identity in live}
        for seen, change in missing:
            asked = violations.obstacle(change, live)
            if asked and ("table", _about(kind, change)[0]) in there and _has_rows(site, asked):
                return seen, change
    return missing[0]


def _has_rows(site: Site, asked: violations.Obstacle) -> bool:
    try:
        with site.target.reading(site.run_id) as conn:
            return conn.exec_driver_sql(asked.sql.replace("%", "%%")).fetchone() is not None
    except QueryFailed:
        return False  # the mode asks again, and says so

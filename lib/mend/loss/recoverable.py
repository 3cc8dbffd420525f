"""What can be had back of a dropped column, as facts for a plan: which column it was, what of it is readable, and what stands against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mend.change import kept
from mend.change.kept import Facets, Keeper
from mend.database import catalog, names, queries
from mend.diagnosis import Site
from mend.errors import InvalidParameter, MendError, QueryFailed
from mend.histories import history
from mend.histories.project import Project
from mend.journal import sha256
from mend.loss import dropped, dropped_history
from mend.loss.dropped import Dropped, Rows, Type
from mend.loss.dropped_history import Column, Match
from mend.repairs import halfway, subject
from mend.replays import expected, scratch


@dataclass(frozen=True)
class Lost:
    """The column in question.

    ``definition``: as the catalog printed it, '' where nobody knows.  ``certain``: the history says it of just this number.
    ``places``: where its values are: the table itself, or each partition.  ``against``: why it must not be read, or ''.
    """

    table: str
    column: str
    definition: str
    certain: bool
    match: Match
    places: tuple[Dropped, ...]
    type: Type | None
    against: str

    @property
    def identity(self) -> str:
        return f"{self.table}.{self.column}"


@dataclass(frozen=True)
class Facts:
    """Everything that a plan is made from.

    ``asked``: a column was named, or a revision that dropped some.  ``every``: all dropped columns that have rows.  ``candidates``: those
    of the table in question, with what they were.  ``lost``: the one in question.  ``unknown``: why the history does not tell.
    """

    asked: bool
    every: tuple[Dropped, ...]
    candidates: tuple[Match, ...] = ()
    lost: Lost | None = None
    rows: tuple[Rows, ...] = ()
    vacuums: pd.DataFrame = None  # type: ignore[assignment]
    live: Facets | None = None
    keeper: Keeper | None = None
    key: Mapping[str, str] | None = None
    superuser: bool = False
    role: str = ""
    unknown: str = ""

    @property
    def readable(self) -> int | None:
        """Rows as old as the column, in all places; None where that is not known."""
        counts = [one.older for one in self.rows]
        return None if None in counts else sum(one for one in counts if one is not None)


def look(site: Site, given: Mapping[str, Any]) -> Facts:
    """What is left of dropped columns; closely where one is asked for.

    Raises: InvalidParameter for a table or a column that cannot be told.
    """
    named = {name: str(given.get(name) or "") for name in ("table", "column", "column_type", "revision")}
    attnum = int(given.get("attnum") or 0)
    with site.target.reading(site.run_id) as conn:
        every = tuple(one for one in dropped.columns(conn) if one.kind == "r")
    asked = bool(named["table"]) or bool(attnum)
    if not asked and given.get("option") not in ("recover",):
        return Facts(False, every, superuser=site.identity.superuser, role=site.identity.role)
    if not named["table"]:
        raise InvalidParameter(
            "Which table was it? Nothing was changed. Name it as `table`, and the column as `column`."
        )
    table = subject.relation(site, named["table"])
    return _closely(site, table, named, attnum, every)


def _closely(site: Site, table: str, named: Mapping[str, str], attnum: int, every: tuple[Dropped, ...]) -> Facts:
    made, unknown = history_of(site, table)
    with site.target.reading(site.run_id) as conn:
        found = dropped.columns(conn, table)
        live = catalog.facets(catalog.snapshot(conn))
    own = [one for one in found if one.relation == table]
    candidates = dropped_history.matches(made, own)
    keeper = Keeper(
        site.target.settings.schema_name,
        sha256(f"recover {table} {named} {attnum} {site.last_run}")[:16],
        kept.primary_keys(live),
    )
    columns = kept.columns_of(table, live)
    key = {name: columns[name] for name in keeper.primary_keys.get(table, ())}
    facts = Facts(
        True, every, candidates, live=live, keeper=keeper, key=key, superuser=site.identity.superuser, role=site.identity.role, unknown=unknown
    )  # fmt: skip
    match = _chosen(candidates, named, attnum)
    if match is None:
        return facts
    return _with_rows(site, replace(facts, lost=_lost(site, table, _said(match, made, named, attnum), named, found)))


def history_of(site: Site, table: str) -> tuple[tuple[Column, ...], str]:
    """The table's columns by the history, or why they are not known."""
    if site.project is None:
        return (), "no Alembic project was named"
    try:
        return _replayed(site, site.project, table), ""
    except MendError as error:
        return (), error.message.partition(" Nothing was changed.")[0]


def _replayed(site: Site, project: Project, table: str) -> tuple[Column, ...]:
    past = history.read(project.alembic_ini, python=project.python)
    with site.target.reading(site.run_id) as conn:
        tables, found = history.version_tables(conn), history.version_rows(conn)
        users = tuple(queries.frame(conn, "target/roles")["role"])
    rows = [row for row in halfway.version_table(halfway.probed(project), tables, found).rows if row in past.revisions]
    own = site.target.settings
    made = expected.expected(
        project, rows, scratch=scratch.choose(site.target, version_num=site.identity.version_num, roles=users),
        base=Path(own.base) if own.base else None, base_revision=own.base_revision,
        progress=lambda done, total, text: site.progress(f"{text} ({done} of {total})"),
    )  # fmt: skip
    return dropped_history.columns_of(made, table)


def _chosen(candidates: Sequence[Match], named: Mapping[str, str], attnum: int) -> Match | None:
    """The one in question; None where there is none, or none that is said."""
    wanted = names.unquoted(named["column"])
    fitting = [
        one
        for one in candidates
        if (not attnum or one.dropped.attnum == attnum)
        and (not wanted or one.column is None or names.unquoted(one.column.name) == wanted)
        and (
            not named["revision"]
            or one.column is None
            or one.column.revision == named["revision"]
            or bool(wanted or attnum)
        )
    ]
    sure = [one for one in fitting if one.column is not None]
    if len(sure) == 1 and not attnum:
        return sure[0]
    return fitting[0] if len(fitting) == 1 else None


def _said(match: Match, made: Sequence[Column], named: Mapping[str, str], attnum: int) -> Match:
    """Where the numbers do not tell, the operator may, by name and number both."""
    if match.column is not None or not (attnum and named["column"]):
        return match
    known = [one for one in made if one.revision and names.unquoted(one.name) == names.unquoted(named["column"])]
    if not known:
        return match
    return Match(match.dropped, known[-1], True, "the operator says its number, and the history its type")


def _lost(site: Site, table: str, match: Match, named: Mapping[str, str], found: Sequence[Dropped]) -> Lost:
    by_history = match.column.definition if match.column else ""
    definition = named["column_type"] or by_history
    certain = match.certain and bool(by_history) and definition in (by_history, kept.type_of(by_history))
    name = match.column.name if match.column else _quoted(site, named["column"] or f"column_{match.dropped.attnum}")
    places, against = _places(match.dropped, found)
    kind = _type(site, kept.type_of(definition), match.dropped.modifier) if definition else None
    if named["column_type"] and kind:
        definition = kind.printed
    if not definition:
        against = f"nobody says what type it was: {match.why}; say it as column_type"
    for one in places if not against else ():
        against = against or dropped.objection(
            one, kind, named=named["column_type"] or kept.type_of(definition), certain=certain
        )
    return Lost(table, name, definition, certain, match, places, kind, against)


def _type(site: Site, name: str, modifier: int) -> Type | None:
    """Raises: InvalidParameter for what is no name of a type."""
    try:
        with site.target.reading(site.run_id) as conn:
            return dropped.type_of(conn, name, modifier)
    except QueryFailed as error:
        raise InvalidParameter(
            f"column_type {name!r} is no name of a type. Nothing was changed. Write e.g. text or numeric(12,2)."
        ) from error


def _quoted(site: Site, name: str) -> str:
    with site.target.reading(site.run_id) as conn:
        return str(conn.exec_driver_sql("select quote_ident(%s)", (names.unquoted(name),)).scalar_one())


def _places(root: Dropped, found: Sequence[Dropped]) -> tuple[tuple[Dropped, ...], str]:
    """The same column in every relation that holds rows of the table; a partition may number its columns otherwise.

    All of them were dropped by one transaction.  Among several of one shape the order tells, where the columns that are left are in one order.
    """
    if root.kind == "r":
        return (root,), ""
    alike = _alike(root, [one for one in found if one.relation == root.relation])
    places = []
    for leaf in sorted({one.relation for one in found if one.kind == "r"}):
        theirs = _alike(root, [one for one in found if one.relation == leaf])
        if not theirs:
            continue  # attached since, or without the column
        order = [name for name in theirs[0].columns if name]
        if len(theirs) != len(alike) or (len(alike) > 1 and order != [name for name in root.columns if name]):
            return (), f"which column of partition {leaf} it is cannot be told"
        places.append(theirs[[one.attnum for one in alike].index(root.attnum)])
    return tuple(places), "" if places else "no partition has it"


def _alike(root: Dropped, columns: Sequence[Dropped]) -> list[Dropped]:
    return [one for one in columns if one.dropped_xid == root.dropped_xid and one.shape == root.shape]


def _with_rows(site: Site, facts: Facts) -> Facts:
    """How many rows can be read, and what is at work on them."""
    assert facts.lost is not None
    with site.target.reading(site.run_id) as conn:
        counts = tuple(dropped.rows(conn, one) for one in facts.lost.places)
        vacuums = queries.frame(conn, "data_loss/vacuums", relations=[one.relation for one in facts.lost.places])
    revision = facts.lost.match.column.revision if facts.lost.match.column else ""
    keeper = replace(facts.keeper, revision=revision) if facts.keeper else None
    return replace(facts, keeper=keeper, rows=counts, vacuums=vacuums)

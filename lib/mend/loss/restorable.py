"""What can be put back from a copy in schema ``mend``, as facts for a plan: what it holds, whether it is what its manifest says, where it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from psycopg import sql as pgsql
from sqlalchemy import Connection

from mend.change import kept, manifest
from mend.change.kept import Facets, Keeper
from mend.change.manifest import Kept
from mend.database import catalog, names, queries
from mend.diagnosis import Site
from mend.errors import InvalidParameter
from mend.journal import sha256
from mend.loss import dropped, recoverable
from mend.loss.dropped import Dropped
from mend.values import counting


@dataclass(frozen=True)
class Facts:
    """Everything that a plan is made from.

    ``name``: of the copy, '' where none was named.  ``source``: ``public.t.c`` of a column, ``public.t`` of a table.  ``columns``: quoted
    columns of the copy with their types, in order.  ``against``: why it must not be put back, or ''.  ``definition`` and ``default``: of
    the column as it was.  ``missing``: rows whose target is NULL, or is not there.
    ``others``: dropped columns of the table, whose values a change of its rows would take.
    """

    name: str = ""
    place: str = ""
    source: str = ""
    table: str = ""
    column: str = ""
    columns: Mapping[str, str] = None  # type: ignore[assignment]
    key: tuple[str, ...] = ()
    rows: int = 0
    noted: Kept | None = None
    against: str = ""
    definition: str = ""
    default: str = ""
    live: Facets = None  # type: ignore[assignment]
    keeper: Keeper = None  # type: ignore[assignment]
    missing: counting.Count | None = None
    differing: counting.Count | None = None
    gone: counting.Count | None = None
    others: tuple[Dropped, ...] = ()

    @property
    def adds(self) -> bool:
        """Whether the column has to be made first."""
        return bool(self.column) and ("column", f"{self.table}.{self.column}") not in self.live

    def kept_key(self, alias: str) -> list[str]:
        """The key of a row of the copy, in the types of the table."""
        own = kept.columns_of(self.table, self.live)
        return [kept.as_restored(f"{alias}.{one}", own[one]) for one in self.key]


def look(site: Site, given: Mapping[str, Any]) -> Facts:
    """The copy that was named, and the table that it came from.

    Raises: InvalidParameter where there is no such copy.
    """
    name = names.unquoted(names.last(str(given.get("copy") or "")) if given.get("copy") else "")
    schema = site.target.settings.schema_name
    if not name:
        if given.get("option") == "restore":
            raise InvalidParameter(
                "Which copy is to be put back? Nothing was changed. Name it as `copy`; `mend rescue list` shows them."
            )
        return Facts()
    with site.target.reading(site.run_id) as conn:
        one = next((one for one in manifest.read(conn, schema) if one.name == name), None)
        if one is None:
            raise InvalidParameter(
                f"Schema {schema} has no copy {name!r}. Nothing was changed. `mend rescue list` shows what there is."
            )
        wrong = _wrong(conn, schema, one)
        live = catalog.facets(catalog.snapshot(conn))
        columns = queries.frame(conn, "data_loss/copy_columns", schema=schema, name=name)
    place = pgsql.Identifier(schema, name).as_string(None)
    if wrong:
        return Facts(name=name, place=place, against=wrong, noted=one, live=live)
    return _examined(site, one, place, live, dict(zip(columns["column_name"], columns["type"], strict=True)))


def _wrong(conn: Connection, schema: str, one: Kept) -> str:
    """Why a copy cannot be trusted to be what was kept; ''."""
    if not one.noted or not one.compares:
        return "no manifest tells what it must hold"
    if one.grantees:
        return f"it was opened to {one.grantees}"
    return manifest.difference(conn, schema, one)


def _examined(site: Site, one: Kept, place: str, live: Facets, columns: Mapping[str, str]) -> Facts:
    source, name = one.source, one.name
    table, column = _told(source)
    keeper = Keeper(
        site.target.settings.schema_name, sha256(f"restore {name} {site.last_run}")[:16], kept.primary_keys(live), revision=one.revision
    )  # fmt: skip
    facts = Facts(
        name=name, place=place, source=source, table=table, column=column, columns=columns, rows=one.rows, noted=one, live=live,
        keeper=keeper, key=keeper.primary_keys.get(table, ()),
    )  # fmt: skip
    if against := _against(facts):
        return replace(facts, against=against)
    with site.target.reading(site.run_id) as conn:
        others = tuple(one for one in dropped.columns(conn, table) if one.kind == "r") if column else ()
    return _counted(site, _defined(site, replace(facts, others=others)))


def _told(source: str) -> tuple[str, str]:
    """Table and column that a copy holds content of; no column where it holds whole rows.

    >>> _told("public.t.c"), _told("public.t"), _told("public.t (rows)")
    (('public.t', 'c'), ('public.t', ''), ('public.t', ''))
    """
    whole = source.removesuffix(" (rows)")
    return (names.parent(whole), names.last(whole)) if len(names.split(whole)) == 3 else (whole, "")


def _against(facts: Facts) -> str:
    """What is wrong before its rows are looked at."""
    if facts.table.endswith((")", " position")) or {"made", "changed"} <= facts.columns.keys() - {facts.column}:
        return "it holds what a change of rows or of a type overwrote: `mend undo` of its run gives that back"
    if ("table", facts.table) not in facts.live:
        return f"there is no table {facts.table}: make it first (alembic downgrade makes it, empty), then put its rows back"
    if not facts.key:
        return f"{facts.table} has no primary key, so nobody could tell which row a value belongs to"
    if unknown := [one for one in facts.key if one not in facts.columns]:
        return f"the copy has no {', '.join(unknown)}, by which {facts.table} tells its rows apart now"
    if facts.column and facts.column not in facts.columns:
        return f"the copy has no column {facts.column}"
    return ""


def _defined(site: Site, facts: Facts) -> Facts:
    """With the column as it was: by what is there, by the history, else by the copy."""
    if not facts.column:
        return facts
    there = facts.live.get(("column", f"{facts.table}.{facts.column}"))
    if there is not None:
        return replace(facts, definition=there)
    made, _ = recoverable.history_of(site, facts.table)
    known = [one for one in made if one.name == facts.column]
    if known:
        return replace(facts, definition=known[-1].definition, default=known[-1].default)
    return replace(facts, definition=facts.columns[facts.column])


def _counted(site: Site, facts: Facts) -> Facts:
    """With how many rows would come back, and how many hold something else by now."""
    same = " and ".join(f"t.{one} = {key}" for one, key in zip(facts.key, facts.kept_key("k"), strict=True))
    there = f"select from {facts.place} as k where exists (select from {facts.table} as t where {same}"
    with site.target.reading(site.run_id) as conn:
        gone = counting.of_query(
            conn, f"select from {facts.place} as k where not exists (select from {facts.table} as t where {same})"
        )
        if not facts.column or facts.adds:
            missing = gone if not facts.column else counting.of_query(conn, f"{there})")
            return replace(facts, gone=gone, missing=missing)
        own = f"t.{facts.column}"
        value = kept.as_restored(f"k.{facts.column}", facts.definition)
        differs = (
            f'{own} is not null and cast({own} as text) collate "C" is distinct from cast({value} as text) collate "C"'
        )
        missing = counting.of_query(conn, f"{there} and {own} is null)")
        return replace(facts, gone=gone, missing=missing, differing=counting.of_query(conn, f"{there} and {differs})"))


def frame(facts: Facts) -> pd.DataFrame:
    """One line about the copy."""
    row = {
        "copy": facts.place, "of": facts.source, "rows": facts.rows, "to be put back": facts.missing.says if facts.missing else "",
        "hold another value by now": facts.differing.says if facts.differing else "", "row is gone": facts.gone.says if facts.gone else "",
        "of run": facts.noted.run_id if facts.noted else "", "wrong": facts.against,
    }  # fmt: skip
    return pd.DataFrame([row])

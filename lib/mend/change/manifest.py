"""The manifest of what is kept in schema ``mend``: of each copy what it holds, how many rows, their checksum, until when, of which run.

A copy is noted in the transaction that makes it, and compared with its note before it is given back.  The checksum is that of the rows
in any order, and of the columns' names; the session's time zone is noted with it, because values with one are compared as they are written.  Texts, but for ``read``
and ``difference``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql as pgsql

from mend.database import queries
from mend.plan import Statement

if TYPE_CHECKING:
    from sqlalchemy import Connection

TABLE = "manifest"
COLUMNS = (
    "name text primary key, source text not null, source_oid oid, rows int8 not null, checksum text not null, "
    "timezone text not null, revision text not null, run_id text not null, created_at timestamptz not null default clock_timestamp(), "
    "expires_at timestamptz not null, restored_at timestamptz"
)
# The whole row as text: a column may have the alias's name, so the star stands behind it.
_ROWS = 'cast(coalesce(sum(cast(hashtextextended(cast((mend_k.*) as text) collate "C", 0) as numeric)), 0) as text)'
# Not from public alone: ALTER DEFAULT PRIVILEGES may have given a new table to somebody.
_CLOSED = """do $mend$ declare granted record; begin
  for granted in select distinct case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end as role
                   from pg_catalog.pg_class as c, aclexplode(c.relacl) as a where c.oid = cast({0} as regclass) and a.grantee <> c.relowner
  loop execute {1} || granted.role; end loop;
end $mend$"""


def schema_statements(schema: str) -> tuple[str, ...]:
    """SQL that makes the manifest where it is missing."""
    name = pgsql.Identifier(schema, TABLE).as_string(None)
    return (f"create table if not exists {name} ({COLUMNS})", f"revoke all on {name} from public")


def closed(place: str) -> str:
    """SQL that leaves a table (quoted and qualified) to its owner alone."""
    return _CLOSED.format(_literal(place), _literal(f"revoke all on table {place} from "))


def _checksum(place: str) -> str:
    """An expression over the rows ``mend_k`` of a table: their content in any order, and what its columns are called."""
    told = "string_agg(quote_ident(a.attname) || ' ' || cast(a.atttypid as text), ', ' order by a.attnum)"
    of = f"pg_catalog.pg_attribute as a where a.attrelid = cast({_literal(place)} as regclass) and a.attnum > 0 and not a.attisdropped"
    return f"{_ROWS} || ' ' || (select md5({told}) from {of})"


def note(schema: str, name: str, *, source: str, table: str, revision: str, days: int) -> Statement:
    """Note a copy as it is now: ``name`` in ``schema`` holds content of ``source``, which lies in or is ``table`` ('': in none)."""
    owner = f"to_regclass({_literal(table)})" if table else "null"
    place, book = (pgsql.Identifier(schema, one).as_string(None) for one in (name, TABLE))
    return Statement(
        f"insert into {book} (name, source, source_oid, rows, checksum, timezone, revision, run_id, expires_at)\n"
        f"select {_literal(name)}, {_literal(source)}, {owner}, count(*), {_checksum(place)}, "
        f"current_setting('TimeZone'), {_literal(revision)}, split_part(current_setting('application_name'), ':', 2), "
        f"clock_timestamp() + interval '{int(days)} days' from {place} as mend_k",
        exactly=1,
    )


def compared(schema: str, name: str) -> tuple[Statement, ...]:
    """Statements that go through only where the copy is what its note says."""
    place, book = (pgsql.Identifier(schema, one).as_string(None) for one in (name, TABLE))
    own = f"from {book} as m where m.name = {_literal(name)}"
    return (
        Statement(f"select set_config('timezone', m.timezone, true) {own}", exactly=1),
        Statement(
            f"select m.name {own} and (m.rows, m.checksum) = (select count(*), {_checksum(place)} from {place} as mend_k)",
            exactly=1,
        ),
        Statement("set local timezone to default"),
    )


def given_back(schema: str, name: str) -> Statement:
    """Note that its content is where it came from."""
    book = pgsql.Identifier(schema, TABLE).as_string(None)
    return Statement(f"update {book} set restored_at = clock_timestamp() where name = {_literal(name)}", exactly=1)


def dropped(schema: str, name: str, *, compares: bool) -> tuple[Statement, ...]:
    """Drop a table and its note; ``compares``: only if it is what that says."""
    place, book = (pgsql.Identifier(schema, one).as_string(None) for one in (name, TABLE))
    return (
        *(compared(schema, name) if compares else ()),
        Statement(f"delete from {book} where name = {_literal(name)}", exactly=1),
        Statement(f"drop table {place}"),
    )


def listed(schema: str, name: str, *, source: str, table: str, days: int) -> Statement:
    """Note a table whose rows come and go with a repair: until when it stays; what it holds is not compared."""
    book = pgsql.Identifier(schema, TABLE).as_string(None)
    return Statement(
        f"insert into {book} (name, source, source_oid, rows, checksum, timezone, revision, run_id, expires_at)\n"
        f"values ({_literal(name)}, {_literal(source)}, to_regclass({_literal(table)}), 0, '', '', '', "
        f"split_part(current_setting('application_name'), ':', 2), clock_timestamp() + interval '{int(days)} days')"
    )


@dataclass(frozen=True)
class Kept:
    """One table of the schema.

    ``noted``: the manifest knows it, else ``source`` is what its comment says and the times are empty.  ``there``: the table exists.
    ``compares``: its note says what its rows must be.  ``grantees``: who else may use it.
    """

    name: str
    source: str
    rows: int
    size_bytes: int
    noted: bool
    there: bool
    compares: bool
    checksum: str = ""
    timezone: str = ""
    revision: str = ""
    run_id: str = ""
    created_at: str = ""
    expires_at: str = ""
    expired: bool = False
    restored_at: str = ""
    grantees: str = ""

    @property
    def kind(self) -> str:
        """What it is: ``rescue``, ``images``, ``quarantine``, ``worklist``, ``checkpoints``, or ``other``."""
        words = {
            "kept": "rescue",
            "image": "images",
            "quarantine": "quarantine",
            "work": "worklist",
            "range": "checkpoints",
        }
        return words.get(self.name.partition("_")[0], "other")


_NOTED = (
    "source, rows, checksum, timezone, revision, run_id, cast(date_trunc('second', created_at at time zone 'utc') as text), "
    "cast(date_trunc('second', expires_at at time zone 'utc') as text), expires_at < clock_timestamp(), "
    "coalesce(cast(date_trunc('second', restored_at at time zone 'utc') as text), '')"
)


def read(conn: Connection, schema: str) -> tuple[Kept, ...]:
    """Every table in the schema but mend's own two, and every note, the oldest first; nothing where there is no such schema."""
    there = {str(row["name"]): row for row in queries.frame(conn, "data_loss/kept", schema=schema).to_dict("records")}
    book = pgsql.Identifier(schema, TABLE).as_string(None)
    notes: dict[str, Any] = {}
    if TABLE in there:
        text = f"select name, {_NOTED} from {book} order by created_at, name"
        notes = {str(row[0]): row[1:] for row in conn.exec_driver_sql(text.replace("%", "%%"))}
    unnoted = [name for name in there if name not in notes and name not in (TABLE, "run")]
    return tuple(_kept(name, notes.get(name), there.get(name)) for name in (*unnoted, *notes))


def _kept(name: str, note: Any, table: Any) -> Kept:
    size = int(table["size_bytes"]) if table else 0
    grantees = str(table["grantees"]) if table else ""
    if note is None:
        says = str(table["says"]).removeprefix("mend: ")
        return Kept(
            name, says, int(table["rows_estimate"]), size, noted=False, there=True, compares=False, grantees=grantees
        )
    source, rows, checksum, timezone, revision, run_id, created_at, expires_at, expired, restored_at = note
    compares = bool(checksum) and not restored_at
    shown = int(rows) if checksum or not table else int(table["rows_estimate"])
    return Kept(
        name, source, shown, size, True, table is not None, compares, checksum, timezone, revision, run_id,
        created_at, expires_at, bool(expired), restored_at, grantees,
    )  # fmt: skip


def difference(conn: Connection, schema: str, one: Kept) -> str:
    """What is wrong with a copy: gone, or other than noted; '' where it is right, or its note does not say what it must hold.

    Reads every row of it.  Raises: DBAPIError, a timeout too.
    """
    if not one.there:
        return "it is gone"
    if not one.compares:
        return ""
    place = pgsql.Identifier(schema, one.name).as_string(None)
    savepoint = conn.begin_nested()
    try:
        conn.exec_driver_sql("select set_config('timezone', %s, true)", (one.timezone,))
        text = f"select count(*), {_checksum(place)} from {place} as mend_k"
        rows, checksum = conn.exec_driver_sql(text.replace("%", "%%")).one()
    finally:
        savepoint.rollback()
    if int(rows) != one.rows:
        return f"it holds {int(rows):,} rows where {one.rows:,} were written"
    return "" if str(checksum) == one.checksum else "its rows are not those that were written: the checksum differs"


def noted_by(texts: Iterable[str]) -> tuple[str, ...]:
    """The copies that these statements make and note."""
    return tuple(dict.fromkeys(name for text in texts for name in re.findall(r"\bselect '(kept_[0-9a-f]+)', ", text)))


def compared_by(texts: Iterable[str]) -> tuple[str, ...]:
    """The copies that these statements compare with their notes before they use them."""
    return tuple(dict.fromkeys(name for text in texts for name in re.findall(r"\bm\.name = '(kept_[0-9a-f]+)'", text)))


def _literal(text: str) -> str:
    return pgsql.Literal(text).as_string(None)

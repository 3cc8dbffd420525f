"""What mend keeps in the target itself: schema ``mend``, its tables ``run`` and ``manifest``, and who may read them.  SQL only; `execute` sends it.

The ledger makes a plan apply once, and keeps each journal's head and length where an editor of the record cannot reach.
The schema's comment starts with ``mend:``; catalog snapshots leave such schemas out.  Every text is for ``exec_driver_sql``, which reads
percent signs: a name's own are doubled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import sql as pgsql
from sqlalchemy import Connection

from mend.change import manifest
from mend.database import queries

# What the catalog says of the table below.
_COLUMNS = (
    "run_id text, slug text, digest text, action text, started_at timestamptz clock_timestamp(), finished_at timestamptz, "
    "outcome text 'started'::text, journal_length int4, journal_head text"
)
MARK = "mend: undo data and applied plans; `mend runs` lists them"


@dataclass(frozen=True)
class Entry:
    """The last applied run."""

    run_id: str
    digest: str


# Not from public alone: ALTER DEFAULT PRIVILEGES may have given a new schema to somebody.
_REVOKE = """do $mend$ declare granted record; begin
  for granted in select distinct case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end as role
                   from pg_namespace as n, aclexplode(n.nspacl) as a where n.nspname = {0} and a.grantee <> n.nspowner
  loop execute 'revoke all on schema ' || quote_ident({0}) || ' from ' || granted.role; end loop;
end $mend$"""


def _name(schema: str) -> pgsql.Identifier:
    return pgsql.Identifier(schema.replace("%", "%%"))


def schema_statements(schema: str) -> tuple[str, ...]:
    """SQL that makes the ledger, readable by its owner only; harmless where it is there already."""
    name = _name(schema)
    texts = (
        pgsql.SQL("create schema if not exists {0}").format(name),
        pgsql.SQL("comment on schema {0} is {1}").format(name, pgsql.Literal(MARK)),
        pgsql.SQL(_REVOKE).format(pgsql.Literal(schema.replace("%", "%%"))),
        pgsql.SQL(
            "create table if not exists {0}.run (run_id text primary key, slug text not null, digest text not null unique, action text not null, "
            "started_at timestamptz not null default clock_timestamp(), finished_at timestamptz, outcome text not null default 'started', "
            "journal_length int4, journal_head text)"
        ).format(name),
        pgsql.SQL("revoke all on {0}.run from public").format(name),
    )
    book = (text.replace("%", "%%") for text in manifest.schema_statements(schema))
    return (*(text.as_string(None) for text in texts), *book)


def missing_statements(conn: Connection, schema: str) -> tuple[str, ...]:
    """SQL that adds what a ledger lacks that an earlier version of mend made."""
    named = pgsql.Identifier(schema, manifest.TABLE).as_string(None)
    there = conn.exec_driver_sql("select to_regclass(%s)", (named,)).scalar()
    return () if there else tuple(text.replace("%", "%%") for text in manifest.schema_statements(schema))


def state(conn: Connection, schema: str) -> str:
    """``absent``, ``ours`` or ``foreign``; see ``why_foreign``."""
    found = _standing(conn, schema)
    return "absent" if found is None else "foreign" if _objection(found) else "ours"


def why_foreign(conn: Connection, schema: str) -> str:
    """Why a schema of that name is not taken for mend's ledger, naming its owner; '' where it is, or there is none.

    The rule: schema and table ``run`` belong to the current role or to a superuser, the comment is mend's, and the table is as
    mend makes it, with no trigger, rule, policy, check or default of anybody else's.  Whoever owns a table decides what code runs as
    those who write to it, so another role's ledger is refused, also where the current role is a member of that role: its other
    members own it as much.  A team that shares a ledger shares the role that mend runs as (``options='-c role=...'``).
    """
    found = _standing(conn, schema)
    return _objection(found) if found is not None else ""


def _standing(conn: Connection, schema: str) -> Any:
    """The one row of the question, or None where there is no such schema."""
    found = list(queries.frame(conn, "execute/ledger", schema=schema).itertuples())
    return found[0] if found else None


def _objection(found: Any) -> str:
    if not found.marked:
        return f"it belongs to role {found.owner} and was not made by mend"
    if not found.trusted:
        return f"it belongs to role {found.owner}, which could make its table run code as you"
    if not isinstance(found.table_owner, str):
        return f"it belongs to role {found.owner} and has no table run"
    if not found.table_trusted:
        return f"its table run belongs to role {found.table_owner}, which could make it run code as you"
    if not found.plain or found.columns != _COLUMNS:
        return f"its table run, of role {found.table_owner}, is not as mend makes it"
    return ""


def last(conn: Connection, schema: str) -> Entry | None:
    """The run applied last to this database, by mend's own ledger; part of every plan's evidence."""
    if state(conn, schema) != "ours":
        return None
    query = pgsql.SQL("select run_id, digest from {0}.run order by started_at desc, run_id desc limit 1")
    row = conn.exec_driver_sql(query.format(_name(schema)).as_string(None)).fetchone()
    return Entry(*row) if row else None


def applied_since(conn: Connection, schema: str, run_id: str) -> tuple[str, ...]:
    """The runs that applied plans after this one, the newest first."""
    if state(conn, schema) != "ours":
        return ()
    query = pgsql.SQL(
        "select run_id from {0}.run where action = 'apply' and started_at > (select started_at from {0}.run where run_id = {1}) order by started_at desc"
    )
    text = query.format(_name(schema), pgsql.Literal(run_id)).as_string(None)
    return tuple(str(row[0]) for row in conn.exec_driver_sql(text.replace("%", "%%")))


def begin_run(schema: str, *, run_id: str, slug: str, digest: str, action: str) -> tuple[str, dict[str, Any]]:
    """The insert that consumes a plan; the unique digest makes a second use fail with 23505."""
    text = pgsql.SQL(
        "insert into {0}.run (run_id, slug, digest, action) values (%(run_id)s, %(slug)s, %(digest)s, %(action)s)"
    )
    return text.format(_name(schema)).as_string(None), {
        "run_id": run_id,
        "slug": slug,
        "digest": digest,
        "action": action,
    }


def end_run(schema: str, *, run_id: str, outcome: str, length: int, head: str) -> tuple[str, dict[str, Any]]:
    """The update that anchors the journal in the target."""
    text = pgsql.SQL(
        "update {0}.run set outcome = %(outcome)s, finished_at = clock_timestamp(), journal_length = %(length)s, journal_head = %(head)s where run_id = %(run_id)s"
    )
    return text.format(_name(schema)).as_string(None), {
        "run_id": run_id,
        "outcome": outcome,
        "length": length,
        "head": head,
    }


def digest(conn: Connection, schema: str, run_id: str) -> str | None:
    """The digest of the plan that a run consumed, as the target remembers it; None where it knows nothing of the run."""
    if state(conn, schema) != "ours":
        return None
    text = pgsql.SQL("select digest from {0}.run where run_id = %s").format(_name(schema))
    row = conn.exec_driver_sql(text.as_string(None), (run_id,)).fetchone()
    return str(row[0]).partition(":")[0] if row else None


def anchor(conn: Connection, schema: str, run_id: str) -> tuple[int, str] | None:
    """(journal length, journal head) as the target remembers them, or None."""
    if state(conn, schema) != "ours":
        return None
    text = pgsql.SQL("select journal_length, journal_head from {0}.run where run_id = %s").format(_name(schema))
    row = conn.exec_driver_sql(text.as_string(None), (run_id,)).fetchone()
    return (int(row[0]), str(row[1])) if row and row[0] is not None else None

"""Operations for upgrade() and downgrade() that wait for no lock forever, block nobody for long, and can be run again.

    from mend import migrations

    def upgrade() -> None:
        migrations.not_null("orders", "channel")

attempts              one operation under a lock timeout, tried again; the blockers are named at each try
concurrent_index      CREATE INDEX CONCURRENTLY; an INVALID leftover of the same name is dropped first
unique_constraint     the same for a unique index, then ADD CONSTRAINT .. USING INDEX
not_null              SET NOT NULL without a scan under ACCESS EXCLUSIVE
foreign_key           ADD .. NOT VALID, then VALIDATE
backfilled            stops before anything is changed while rows are left to fill
drop_concurrent_index the way back of the first

All but ``attempts`` and ``backfilled`` commit what stands before them in the run, as ``autocommit_block()`` does, and each
finds out what is there already: stopped at any point, ``alembic upgrade`` is run again.  Give each a revision of its own, or
put them last.  The errors are alembic's CommandError, so the command prints them without a traceback.

With ``alembic upgrade --sql`` all of them write a script.  A script cannot look or try again: where it meets something half
done it stops with the error that says so.

Self-contained: the standard library, alembic (1.10 or newer) and sqlalchemy (1.4 or 2).  Where mend is not installed beside the
project, copy this file into it.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

__all__ = [
    "DifferentObject", "LockNotAcquired", "MigrationStopped", "NotPossible", "RowsLeft",
    "attempts", "backfilled", "concurrent_index", "drop_concurrent_index", "foreign_key", "not_null", "unique_constraint",
]  # fmt: skip

LOCK_TIMEOUT_MS = 2_000  # longer than deadlock_timeout (1 s): an autovacuum in the way gives way only after that
TRIES = 10
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
ROWS_COUNTED = 1_000

_FINISHES_ITSELF = (
    True  # mend's replay asks for this name: what is sent from here is found done when the revision runs again
)
_RETRIED = {
    "55P03",
    "40P01",
}  # lock_not_available, deadlock_detected: nothing was done, and the locks of the try are given back
_BLOCKS_WRITERS = "('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"
_SPARES_READERS = re.compile(r"\bvalidate\s+constraint\b|\badd\s+(constraint\s+\S+\s+)?foreign\s+key\b|\bcreate\s+(unique\s+)?index\b|\bcreate\s+trigger\b", re.I)  # fmt: skip
_NAME = re.compile(r'"((?:[^"]|"")+)"|([A-Za-z_][\w$]*)')
_log = logging.getLogger("alembic.mend")


class MigrationStopped(CommandError):
    """The revision stopped; the message says in which state, and what to do next."""


class NotPossible(MigrationStopped):
    """This cannot be done here. Nothing was changed."""


class LockNotAcquired(MigrationStopped):
    """Others held the lock during every try."""


class DifferentObject(MigrationStopped):
    """Something else has this name. Nothing was changed."""


class RowsLeft(MigrationStopped):
    """Rows stand in the way of the constraint."""


# --- one operation under a lock timeout ---------------------------------------------------------------------------------


def attempts(
    *, lock_timeout_ms: int = LOCK_TIMEOUT_MS, tries: int = TRIES, first_pause_s: float = FIRST_PAUSE_S,
    longest_pause_s: float = LONGEST_PAUSE_S, alone: bool = False, statement_timeout_ms: int | None = None,
) -> Iterator[Attempt]:  # fmt: skip
    """Tries of one operation::

        for attempt in migrations.attempts():
            with attempt:
                op.add_column("orders", sa.Column("channel", sa.Text))

    Each try has a savepoint, so a try that fails gives its locks back; between tries it pauses, twice as long each time, with
    jitter.  The settings are those of the try alone.

    Parameters
    ----------
    lock_timeout_ms : how long a try waits for a lock, and so how long others wait behind it
    tries : at most so many
    first_pause_s, longest_pause_s : bounds of the pauses, in seconds
    alone : commit what stands before, and the operation itself once it is done: nothing else stays locked meanwhile
    statement_timeout_ms : for this operation; 0 is none, None leaves the session's

    Raises: LockNotAcquired after the last try, and already after the first where this transaction holds locks that keep others
    from their tables (they would wait through the pauses); NotPossible inside autocommit_block(); any other error as it is.
    """
    _check(alone=alone)
    settings = {"lock_timeout": lock_timeout_ms, "statement_timeout": statement_timeout_ms}
    limits = {name: value for name, value in settings.items() if value is not None}
    if alone:
        _commit()
    for number in range(1, tries + 1):
        attempt = Attempt(number, tries, limits)
        yield attempt
        if not attempt.entered:
            raise NotPossible(
                "A try was never begun: in the loop over attempts(), write `with attempt:` around the operation. Nothing was changed by it."
            )
        pause = 0.0 if attempt.done else _pause(number, first_pause_s, longest_pause_s)
        if alone:
            _commit()  # also after a try that failed: in the pause the session is idle, not idle in transaction
        if attempt.done:
            return
        _log.warning("%s Trying again in %.1f s.", attempt.said, pause)
        time.sleep(pause)


class Attempt:
    """One try, as a context manager; it swallows a lock timeout unless it is the last."""

    def __init__(self, number: int, tries: int, limits: Mapping[str, int]) -> None:
        self.number, self.tries, self.limits = number, tries, limits
        self.entered = self.done = False
        self.said = ""

    def __enter__(self) -> Attempt:
        self.entered = True
        if _offline():
            _remark("a script cannot try again: where it stops at lock_timeout (55P03), run it again")
            for name, value in self.limits.items():
                op.execute(f"SET LOCAL {name} = {int(value)}")
            return self
        self._savepoint = op.get_bind().begin_nested()
        self._before = _set(self.limits, local=True)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        self.done = error is None
        if _offline():
            for name in self.limits:
                op.execute(f"SET LOCAL {name} TO DEFAULT")
        elif error is None:
            _set(self._before, local=True)
            self._savepoint.commit()
        elif not getattr(error, "connection_invalidated", False):
            self._savepoint.rollback()
            if _sqlstate(error) in _RETRIED:
                self._weigh(error)
                return True
        return False

    def _weigh(self, error: BaseException) -> None:
        """Give up, or say why it is tried again."""
        statement = str(getattr(error, "statement", ""))
        self.said = f"Try {self.number} of {self.tries} got no lock ({_sqlstate(error)}): {_blockers(statement)}."
        held = _held()
        if held:
            raise LockNotAcquired(
                f"{self.said} It is not tried again, because this transaction keeps {held} locked: whoever uses that would wait through the pauses. The "
                "transaction is rolled back. Put the operation into a revision of its own with transaction_per_migration=True in env.py, or say "
                "attempts(alone=True); then run alembic again."
            ) from error
        if self.number == self.tries:
            raise LockNotAcquired(
                f"{self.said} None of this operation is done. Wait for these sessions or end them, then run alembic again."
            ) from error


def _pause(number: int, first_s: float, longest_s: float) -> float:
    """Twice as long after each try, with jitter; shorter than what the server lets a transaction be idle."""
    row = _row("select extract(epoch from current_setting('idle_in_transaction_session_timeout')::interval) as idle_s")
    bound = min(longest_s, first_s * 2 ** (number - 1))
    idle_s = float(row["idle_s"])
    return float(min(bound * random.uniform(0.5, 1.0), idle_s / 2 if idle_s else bound))


def _held() -> str:
    """Tables that others cannot write to while this transaction is open; those that it made itself nobody misses."""
    rows = _rows(f"""
        select distinct format('%I.%I (%s)', n.nspname, c.relname, l.mode) as held
          from pg_catalog.pg_locks as l join pg_catalog.pg_class as c on c.oid = l.relation
          join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
          join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum = -1 -- written once, when the table was made
         where l.pid = pg_backend_pid() and l.granted and c.relkind in ('r', 'p', 'm') and l.mode in {_BLOCKS_WRITERS}
           and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
           and (pg_current_xact_id_if_assigned() is null or age(a.xmin) > age(cast(pg_current_xact_id_if_assigned() as xid)))
         order by 1""")
    return ", ".join(str(row["held"]) for row in rows)


def _blockers(statement: str) -> str:
    """Who holds what the statement names, the longest transaction first; taken just after the try, without a lock."""
    names = [quoted.replace('""', '"') or plain.lower() for quoted, plain in _NAME.findall(statement)]
    harmless = ["AccessShareLock", "RowShareLock"] if _SPARES_READERS.search(statement) else []
    rows = _rows(_BLOCKERS, names=names or [""], harmless=[*harmless, "SIReadLock"])
    seen: dict[Any, str] = {}
    for row in rows:
        seen.setdefault((row["pid"], row["gid"]), _blocker(row))
    more = f"; and {len(seen) - 3} more" if len(seen) > 3 else ""
    return "; ".join(list(seen.values())[:3]) + more if seen else "nobody holds a lock on what it names any more"


_BLOCKERS = """
    with named as (
      select c.oid from pg_catalog.pg_class as c where c.relname = any (cast(:names as text[]))
      union all select i.inhrelid from pg_catalog.pg_inherits as i join pg_catalog.pg_class as p on p.oid = i.inhparent where p.relname = any (cast(:names as text[]))
      union all select k.confrelid from pg_catalog.pg_constraint as k where k.contype = 'f' and k.conname = any (cast(:names as text[]))
    )
    select l.pid, x.gid, l.mode, l.granted, n.nspname || '.' || c.relname as relation, a.usename, a.application_name, a.state, a.query,
           cast(extract(epoch from clock_timestamp() - coalesce(a.xact_start, x.prepared)) as float8) as open_s
      from pg_catalog.pg_locks as l join pg_catalog.pg_class as c on c.oid = l.relation
      join pg_catalog.pg_namespace as n on n.oid = c.relnamespace left join pg_catalog.pg_stat_activity as a on a.pid = l.pid
      left join pg_catalog.pg_locks as own on l.pid is null and own.pid is null and own.locktype = 'transactionid' and own.virtualtransaction = l.virtualtransaction
      left join pg_catalog.pg_prepared_xacts as x on x.transaction = own.transactionid
     where l.locktype = 'relation' and l.relation in (select oid from named) and l.pid is distinct from pg_backend_pid()
       and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
       and not l.mode = any (cast(:harmless as text[]))
     order by l.granted desc, open_s desc nulls last"""


def _blocker(row: Mapping[str, Any]) -> str:
    does = "holds" if row["granted"] else "waits for"
    opened = "" if row["open_s"] is None else f", open {row['open_s']:.0f} s"
    if row["pid"] is None:
        return f"prepared transaction {row['gid']!r}{opened} {does} {row['mode']} on {row['relation']}"
    # What other sessions run may hold values: it is cut at the first literal or comment.
    text = re.sub(r"\d+", "?", re.split(r"['$]|--|/\*", " ".join(str(row["query"] or "").split()))[0])[:80].strip()
    state = row["state"] or "state hidden: needs pg_monitor"
    who = f"{row['usename'] or 'role hidden'}, {row['application_name'] or 'unnamed'}, {state}{opened}"
    return f"pid {row['pid']} ({who}) {does} {row['mode']} on {row['relation']}" + (f": {text}" if text else "")


# --- indexes ------------------------------------------------------------------------------------------------------------


def concurrent_index(
    name: str, table: str, columns: Sequence[Any], *, schema: str | None = None, unique: bool = False, **options: Any
) -> None:
    """CREATE INDEX CONCURRENTLY in an autocommit block, without timeouts (one would leave an INVALID index), and VALID at the end.

    An index of this name that is INVALID is dropped first; a VALID one of the same definition is kept.  Arguments and ``options``
    are those of ``op.create_index``.  On its own, for a table that nothing else uses, ``op.create_index(if_not_exists=True)`` will do.

    Raises: DifferentObject where the name belongs to something else; NotPossible on a partitioned table, or where another session
    may be building the index; any other error as it is, and then the next run begins with what it left.
    """
    if {"if_not_exists", "postgresql_concurrently"} & set(options):
        raise TypeError("concurrent_index() sets if_not_exists and postgresql_concurrently itself")
    _check(alone=True)
    create: Callable[..., None] = lambda: op.create_index(name, table, columns, schema=schema, unique=unique, postgresql_concurrently=True, **options)  # fmt: skip  # noqa: E731
    if _offline():
        _script_guard(
            _INVALID.format(table=_literal(_table(table, schema)), name=_literal(name)),
            f"index {name} is INVALID, or its name is taken: drop it first with DROP INDEX CONCURRENTLY",
        )
        with op.get_context().autocommit_block(), _unlimited():
            create()
        return
    found = _index(name, table, schema)
    if found["whole"]:
        if not _same_index(found, name, table, columns, unique, options):
            raise DifferentObject(
                f"Index {name} exists and is another one: {found['definition']}. Nothing was changed. Rename one of the two, or drop the old one."
            )
        _log.info("index %s is there already, VALID and the same", name)
        return
    with op.get_context().autocommit_block(), _unlimited():
        if found["leftover"]:
            _log.warning("dropping the INVALID index %s, which an interrupted build left", found["index_name"])
            op.execute(_sql(f"DROP INDEX CONCURRENTLY {found['index_name']}"))
        create()
    if not _index(name, table, schema)["whole"]:
        raise MigrationStopped(
            f"Index {name} is not VALID after its build: another session touched it. It is not used by queries. Run alembic again: it drops and rebuilds it."
        )


def drop_concurrent_index(name: str, table: str, *, schema: str | None = None) -> None:
    """DROP INDEX CONCURRENTLY if it is there, without timeouts: one would turn the VALID index into an INVALID one."""
    _check(alone=True)
    there = _table(name, schema) if _offline() else _index(name, table, schema)["index_name"]
    if there:
        with op.get_context().autocommit_block(), _unlimited():
            op.execute(_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {there}"))


def unique_constraint(
    name: str, table: str, columns: Sequence[str], *, schema: str | None = None, deferrable: bool = False,
    initially: str | None = None, lock_timeout_ms: int = LOCK_TIMEOUT_MS, tries: int = TRIES, **options: Any,
) -> None:  # fmt: skip
    """A unique index built CONCURRENTLY, then ADD CONSTRAINT .. USING INDEX under a short lock.

    ``options`` are those of ``op.create_index`` (postgresql_include, postgresql_nulls_not_distinct).
    Raises: as concurrent_index, and LockNotAcquired.
    """
    when = (" DEFERRABLE" if deferrable else "") + (f" INITIALLY {initially.upper()}" if initially else "")
    if not _offline():
        _check(alone=True)
        found = _index(name, table, schema)
        if found["constraint_type"]:
            same = (
                found["constraint_type"] == "u"
                and found["deferring"] == when.strip().replace("INITIALLY IMMEDIATE", "").strip()
            )
            if not same or not _same_index(found, name, table, columns, True, options):
                raise DifferentObject(
                    f"Constraint {name} exists and is another one, of {found['definition']}. Nothing was changed."
                )
            return
    concurrent_index(name, table, columns, schema=schema, unique=True, **options)
    column = op.get_context().dialect.identifier_preparer.quote(name)
    _alone(
        f"ALTER TABLE {_table(table, schema)} ADD CONSTRAINT {column} UNIQUE USING INDEX {column}{when}",
        lock_timeout_ms=lock_timeout_ms,
        tries=tries,
    )


_INVALID = """
    select 1 from pg_catalog.pg_class as c left join pg_catalog.pg_index as i on i.indexrelid = c.oid
     where c.relname = {name} and c.relnamespace = (select relnamespace from pg_catalog.pg_class where oid = to_regclass({table}))"""
_INDEX = """
    select t.relkind = 'p' as partitioned, t.relname as table_name, c.oid is not null as taken, c.relkind in ('i', 'I') as is_index,
           i.indrelid = t.oid as of_table, coalesce(i.indisvalid and i.indisready and i.indislive, false) as whole, i.indisunique,
           case when c.relkind in ('i', 'I') then pg_get_indexdef(c.oid) end as definition, quote_ident(n.nspname) || '.' || quote_ident(c.relname) as index_name,
           cast(k.contype as text) as constraint_type, format('%I.%I', n.nspname, t.relname) as full_name,
           case when k.condeferrable then 'DEFERRABLE' || case when k.condeferred then ' INITIALLY DEFERRED' else '' end else '' end as deferring,
           (select min(l.pid) from pg_catalog.pg_locks as l left join pg_catalog.pg_stat_activity as a on a.pid = l.pid
             where l.relation = t.oid and l.mode = 'ShareUpdateExclusiveLock' and l.granted and l.pid <> pg_backend_pid()
               and a.backend_type is distinct from 'autovacuum worker') as builder
      from pg_catalog.pg_class as t join pg_catalog.pg_namespace as n on n.oid = t.relnamespace
      left join pg_catalog.pg_class as c on c.relname = :name and c.relnamespace = t.relnamespace
      left join pg_catalog.pg_index as i on i.indexrelid = c.oid
      left join pg_catalog.pg_constraint as k on k.conindid = c.oid and k.conrelid = t.oid and k.contype in ('u', 'p', 'x')
     where t.oid = to_regclass(:table)"""


def _index(name: str, table: str, schema: str | None) -> dict[str, Any]:
    """What has this name where an index of the table would be; refuses what must not be touched."""
    rows = _rows(_INDEX, name=name, table=_table(table, schema))
    if not rows:
        raise NotPossible(f"There is no table {table} here. Nothing was changed.")
    found = rows[0]
    found["leftover"] = bool(found["taken"] and not found["whole"])
    if found["taken"] and not (found["is_index"] and found["of_table"]):
        raise DifferentObject(
            f"The name {name} is taken by {found['definition'] or 'something that is no index'}. Nothing was changed. Choose another name."
        )
    if found["partitioned"]:
        raise NotPossible(
            f"{table} is partitioned, and PostgreSQL builds no index concurrently on it. Nothing was changed. Write op.execute('CREATE INDEX {name} ON "
            f"ONLY {table} (..)'), concurrent_index() for every partition, and ALTER INDEX {name} ATTACH PARTITION for each: the last one makes it VALID."
        )
    if found["leftover"] and found["builder"]:
        raise NotPossible(
            f"Index {name} is INVALID, and pid {found['builder']} holds SHARE UPDATE EXCLUSIVE on {table}: it may be building it now. Nothing was changed. Wait for it, then run alembic again."
        )
    return found


def _same_index(found: Mapping[str, Any], name: str, table: str, columns: Sequence[Any], unique: bool, options: Mapping[str, Any]) -> bool:  # fmt: skip
    """Whether the index would come out the same: it is made on an empty copy of the table, and all is rolled back."""
    quote = op.get_context().dialect.identifier_preparer.quote
    savepoint = op.get_bind().begin_nested()
    try:
        for attempt in attempts():
            with attempt:
                op.execute(_sql(f"CREATE TEMPORARY TABLE {quote(found['table_name'])} (LIKE {found['full_name']})"))
        op.create_index(name, found["table_name"], list(columns), schema="pg_temp", unique=unique, **options)
        twin = _row("select pg_get_indexdef(to_regclass(:index)) as definition", index=f"pg_temp.{quote(name)}")
    finally:
        savepoint.rollback()
    tails = [text.split(" USING ", 1)[1] for text in (str(found["definition"]), str(twin["definition"]))]
    return bool(found["indisunique"]) == unique and tails[0] == tails[1]


@contextmanager
def _unlimited() -> Iterator[None]:
    """No timeouts for what waits for other transactions outside a transaction of its own."""
    limits = ("lock_timeout", "statement_timeout")
    if _offline():
        for name in limits:
            op.execute(f"SET {name} = 0")
        yield
        for name in limits:
            op.execute(f"RESET {name}")
        return
    before = _set(dict.fromkeys(limits, 0), local=False)
    try:
        yield
    finally:
        if not op.get_bind().invalidated:
            _set(before, local=False)


# --- constraints --------------------------------------------------------------------------------------------------------


def not_null(
    table: str, column: str, *, schema: str | None = None, check_name: str | None = None,
    lock_timeout_ms: int = LOCK_TIMEOUT_MS, tries: int = TRIES,
) -> None:  # fmt: skip
    """SET NOT NULL: nobody is kept from the table while its rows are read.

    PostgreSQL 18: NOT NULL NOT VALID, then VALIDATE.  Before: CHECK (column IS NOT NULL) NOT VALID, VALIDATE, SET NOT NULL (which then reads
    no rows), and the CHECK (``check_name``) is dropped.  For the way back and for small tables take ``op.alter_column(nullable=..)``.

    Raises: RowsLeft where NULLs are left, before anything is changed, because a NOT VALID constraint stops every update of such a row;
    DifferentObject where a constraint of the CHECK's name says something else; LockNotAcquired.
    """
    check = check_name or f"{table}_{column}_not_null_check"[-63:]
    change = _Change(table, schema, lock_timeout_ms, tries)
    name = change.quote(column)
    by_check = (
        f"ADD CONSTRAINT {change.quote(check)} CHECK ({name} IS NOT NULL) NOT VALID",
        f"VALIDATE CONSTRAINT {change.quote(check)}",
        f"ALTER COLUMN {name} SET NOT NULL",
        f"DROP CONSTRAINT {change.quote(check)}",
    )
    _check(alone=True)
    if _offline():
        backfilled(table, f"{name} IS NULL", schema=schema)
        for part in by_check:
            change.run(part)
        return
    found = _nullable(change.name, column, check)
    if found["check_definition"] and found["check_definition"].replace(" NOT VALID", "") != found["wanted"]:
        raise DifferentObject(
            f"Constraint {check} exists and says {found['check_definition']}. Nothing was changed. Give not_null() another check_name."
        )
    done = found["not_null"] and found["validated"]
    if not done and not found["check_validated"]:
        _no_nulls(change, name, check if found["check_definition"] else "")
    if not done and found["named"]:  # PostgreSQL 18
        if not found["not_null"]:
            change.run(f"ADD NOT NULL {name} NOT VALID")
        made = change.quote(str(_nullable(change.name, column, check)["constraint"]))
        change.validate(made, undo=f"DROP CONSTRAINT {made}" if not found["not_null"] else "", rows=f"{name} IS NULL")
    elif not done:
        if not found["check_definition"]:
            change.run(by_check[0])
        if not found["check_validated"]:
            change.validate(change.quote(check), undo=by_check[3], rows=f"{name} IS NULL")
        change.run(by_check[2])
    if found["check_definition"] or not (done or found["named"]):
        change.run(by_check[3])


def foreign_key(
    name: str, table: str, referent: str, columns: Sequence[str], referent_columns: Sequence[str], *, schema: str | None = None,
    referent_schema: str | None = None, lock_timeout_ms: int = LOCK_TIMEOUT_MS, tries: int = TRIES, **options: Any,
) -> None:  # fmt: skip
    """ADD FOREIGN KEY .. NOT VALID under a short lock, then VALIDATE in a transaction of its own, which blocks no writes.

    ``options`` are those of ``op.create_foreign_key`` (ondelete, onupdate, deferrable, initially, match), whose ``postgresql_not_valid=True``
    is the first half alone: it will do where the rows are validated by a later revision.

    Raises: RowsLeft where rows reference nothing: the constraint stays NOT VALID and so stops new ones; DifferentObject where another
    constraint has this name; NotPossible on a partitioned table before PostgreSQL 18; LockNotAcquired.
    """
    _check(alone=True)
    change = _Change(table, schema, lock_timeout_ms, tries)
    add: Callable[[], Any] = lambda: op.create_foreign_key(  # noqa: E731
        name, table, referent, list(columns), list(referent_columns), source_schema=schema, referent_schema=referent_schema, postgresql_not_valid=True, **options
    )  # fmt: skip
    if _offline():
        change.run(add)
        change.run(f"VALIDATE CONSTRAINT {change.quote(name)}")
        return
    found = _rows(_FOREIGN_KEY, name=name, table=change.name, referent=_table(referent, referent_schema))
    wanted = {
        "columns": list(columns), "referent_columns": list(referent_columns), "of_referent": True, "ondelete": _action(options.get("ondelete")),
        "onupdate": _action(options.get("onupdate")), "deferrable": bool(options.get("deferrable")), "deferred": str(options.get("initially") or "").upper() == "DEFERRED",
        "full_match": str(options.get("match") or "").upper() == "FULL",
    }  # fmt: skip
    if found and {key: found[0][key] for key in wanted} != wanted:
        raise DifferentObject(
            f"Constraint {name} exists and is another one: {found[0]['definition']}. Nothing was changed. Choose another name, or drop the old one."
        )
    if not found:
        if change.partitioned() and _version() < (18,):
            raise NotPossible(
                f"{table} is partitioned, and before PostgreSQL 18 its foreign keys cannot be NOT VALID. Nothing was changed. Call foreign_key() for each partition, then op.create_foreign_key() on {table}: it takes them over without reading rows."
            )
        change.run(add)
    if not found or not found[0]["validated"]:
        change.validate(change.quote(name), undo="", rows="", runbook="foreign_key_violation")


_FOREIGN_KEY = """
    select k.convalidated as validated, pg_get_constraintdef(k.oid) as definition, k.confrelid = to_regclass(:referent) as of_referent,
           array(select cast(attname as text) from unnest(k.conkey) with ordinality as u (n, place) join pg_catalog.pg_attribute on attrelid = k.conrelid and attnum = n order by place) as columns,
           array(select cast(attname as text) from unnest(k.confkey) with ordinality as u (n, place) join pg_catalog.pg_attribute on attrelid = k.confrelid and attnum = n order by place) as referent_columns,
           cast(k.confdeltype as text) as ondelete, cast(k.confupdtype as text) as onupdate, k.condeferrable as deferrable, k.condeferred as deferred,
           k.confmatchtype = 'f' as full_match
      from pg_catalog.pg_constraint as k where k.conrelid = to_regclass(:table) and k.conname = :name"""
_NULLABLE = """
    select a.attnotnull as not_null, coalesce(n.convalidated, true) as validated, n.conname as constraint,
           current_setting('server_version_num')::int >= 180000 as named, pg_get_constraintdef(k.oid) as check_definition,
           coalesce(k.convalidated, false) as check_validated, format('CHECK ((%I IS NOT NULL))', a.attname) as wanted
      from pg_catalog.pg_attribute as a
      left join pg_catalog.pg_constraint as n on n.conrelid = a.attrelid and n.contype = 'n' and n.conkey = array[a.attnum]
      left join pg_catalog.pg_constraint as k on k.conrelid = a.attrelid and k.conname = :check
     where a.attrelid = to_regclass(:table) and a.attname = :column and a.attnum > 0 and not a.attisdropped"""


def _nullable(table: str, column: str, check: str) -> dict[str, Any]:
    rows = _rows(_NULLABLE, table=table, column=column, check=check)
    if not rows:
        raise NotPossible(f"There is no column {column} of {table} here. Nothing was changed.")
    return rows[0]


def _no_nulls(change: _Change, column: str, leftover: str) -> None:
    for attempt in attempts(lock_timeout_ms=change.lock_timeout_ms, tries=change.tries, statement_timeout_ms=0):
        with attempt:
            left, query = _count(change.name, f"{column} IS NULL", ROWS_COUNTED)
    if left:
        more = (
            f" An earlier run left the constraint {leftover} NOT VALID: it stops every update of these rows; ALTER TABLE {change.name} DROP CONSTRAINT {leftover} takes it away."
            if leftover
            else ""
        )
        raise RowsLeft(
            f"{left} rows of {change.name} hold NULL in {column} ({query}). Nothing was changed by this run.{more} Fill them, or run `mend plan not_null_violation`; then run alembic again."
        )


def _action(named: Any) -> str:
    return {"RESTRICT": "r", "CASCADE": "c", "SET NULL": "n", "SET DEFAULT": "d"}.get(str(named or "").upper(), "a")


class _Change:
    """ALTER TABLE of one table, each part in a transaction of its own, under a lock timeout."""

    def __init__(self, table: str, schema: str | None, lock_timeout_ms: int, tries: int) -> None:
        self.name = _table(table, schema)
        self.quote: Callable[[str], str] = op.get_context().dialect.identifier_preparer.quote
        self.lock_timeout_ms, self.tries = lock_timeout_ms, tries

    def run(self, part: str | Callable[[], Any]) -> None:
        act = part if callable(part) else f"ALTER TABLE {self.name} {part}"
        _alone(act, lock_timeout_ms=self.lock_timeout_ms, tries=self.tries)

    def validate(self, name: str, *, undo: str, rows: str, runbook: str = "not_null_violation") -> None:
        """VALIDATE; where rows are in the way, ``undo`` takes a constraint away that would stop every update of them."""
        try:
            self.run(f"VALIDATE CONSTRAINT {name}")
        except sa.exc.IntegrityError as error:
            if undo:
                self.run(undo)
            state = (
                f"The constraint {name} was taken away again"
                if undo
                else f"The constraint {name} stays NOT VALID: it stops new rows of the kind"
            )
            raise RowsLeft(
                f"Rows of {self.name} are in the way{f' ({rows})' if rows else ''}: {str(error.orig).splitlines()[0]}. {state}. Mend the rows (`mend plan {runbook}`), then run alembic again."
            ) from error

    def partitioned(self) -> bool:
        return bool(
            _rows(
                "select 1 as yes from pg_catalog.pg_class where oid = to_regclass(:table) and relkind = 'p'",
                table=self.name,
            )
        )


# --- rows ---------------------------------------------------------------------------------------------------------------


def backfilled(table: str, condition: str, *, schema: str | None = None, at_most: int = ROWS_COUNTED) -> None:
    """Stop while rows still meet ``condition`` (SQL, such as ``"channel is null"``); put it first in upgrade(): nothing is changed then.

    It counts no further than ``at_most``.  Raises: RowsLeft.
    """
    _check(alone=False)
    name = _table(table, schema)
    if _offline():
        _script_guard(f"select 1 from {name} where {condition}", f"rows of {name} are not filled yet: {condition}")
        return
    left, query = _count(name, condition, at_most)
    if left:
        raise RowsLeft(
            f"{left} rows of {name} are not filled yet ({query}). This run is rolled back as far as it is not committed. Finish the backfill, then run alembic again."
        )


def _count(table: str, condition: str, at_most: int) -> tuple[str, str]:
    """``""``, a number or ``"at least 1000"``, and the query that shows the rows."""
    row = _row(
        f"select count(*) as left from (select 1 from {table} where {condition} limit {int(at_most)}) as rows_left",
        escape=True,
    )
    left = int(row["left"])
    return ("at least " * (left >= at_most) + str(left) if left else ""), f"select * from {table} where {condition}"


# --- the session --------------------------------------------------------------------------------------------------------


def _check(*, alone: bool) -> None:
    context = op.get_context()
    if context.dialect.name != "postgresql":
        raise NotPossible(f"mend.migrations is for PostgreSQL; this is {context.dialect.name}. Nothing was changed.")
    if context.as_sql:
        return
    connection = op.get_bind()
    raw = connection.connection
    if getattr(getattr(raw, "dbapi_connection", raw), "autocommit", False):
        raise NotPossible(
            "This stands inside autocommit_block(), or env.py connects with AUTOCOMMIT: call it in alembic's own transaction; it makes its own blocks. Nothing was changed by it."
        )
    if alone and connection.in_transaction() and getattr(context, "_transaction", context) is None:
        raise NotPossible(
            "env.py ran SQL on this connection before context.configure(), or it does not run `with context.begin_transaction():`. Alembic then commits nothing. Nothing was changed. Mend env.py first."
        )


def _offline() -> bool:
    return bool(op.get_context().as_sql)


def _commit() -> None:
    """Commit what stands before, and begin a new transaction."""
    with op.get_context().autocommit_block():
        pass


def _alone(act: str | Callable[[], Any], *, lock_timeout_ms: int, tries: int) -> None:
    """One operation as a transaction of its own; nobody else waits behind it longer than the lock timeout, so it may run as long as it takes."""
    for attempt in attempts(lock_timeout_ms=lock_timeout_ms, tries=tries, alone=True, statement_timeout_ms=0):
        with attempt:
            if callable(act):
                act()
            else:
                op.execute(_sql(act))


def _script_guard(query: str, says: str) -> None:
    """In a script: stop with ``says`` where the query finds a row."""
    tag = "mend"
    while f"${tag}$" in query + says:
        tag += "d"
    op.execute(_sql(f"DO ${tag}$ BEGIN IF EXISTS ({query}) THEN RAISE EXCEPTION USING MESSAGE = {_literal(says)}; END IF; END ${tag}$"))  # fmt: skip


def _remark(text: str) -> None:
    op.get_context().impl.static_output(f"-- {text}")


def _set(values: Mapping[str, Any], *, local: bool) -> dict[str, str]:
    """Change settings, for the transaction or for the session; what they were before."""
    before = {name: str(_row("select current_setting(:name) as value", name=name)["value"]) for name in values}
    for name, value in values.items():
        _row(f"select set_config(:name, :value, {str(local).lower()}) as value", name=name, value=str(value))
    return before


def _version() -> tuple[Any, ...]:
    return tuple(op.get_context().dialect.server_version_info or ())


def _sqlstate(error: BaseException) -> str:
    origin = getattr(error, "orig", None)
    return str(getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None) or "")


def _table(name: str, schema: str | None) -> str:
    return str(op.get_context().dialect.identifier_preparer.format_table(sa.table(name, schema=schema)))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _sql(text: str) -> sa.TextClause:
    """A statement in which a colon is a colon."""
    return sa.text(text.replace(":", "\\:"))


def _rows(query: str, *, escape: bool = False, **binds: Any) -> list[dict[str, Any]]:
    text = _sql(query) if escape else sa.text(re.sub(r"::", r"\\:\\:", query))
    return [dict(row) for row in op.get_bind().execute(text, binds).mappings()]


def _row(query: str, *, escape: bool = False, **binds: Any) -> dict[str, Any]:
    return _rows(query, escape=escape, **binds)[0]

"""Content that a step would lose, kept in schema ``mend`` in the same transaction, and put back by its undo.  Pure SQL texts.

Dropping a column or table takes its values along.  Before such a step the values are copied beside their primary key.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql as pgsql

from mend import names
from mend.journal import sha256
from mend.plan import Statement

EXPIRY_DAYS = 30


@dataclass(frozen=True)
class Keeping:
    """Statements that keep content, and statements that put it back into the object, once that exists again."""

    keep: tuple[Statement, ...]
    restore: tuple[Statement, ...]


def column(schema: str, run_key: str, identity: str, primary_key: tuple[str, ...]) -> Keeping:
    """Keep the non-null values of a column (``public.t.c``) beside the primary key (quoted column names)."""
    table, name = names.parent(identity), names.last(identity)
    kept, keys = _name(schema, run_key, identity), ", ".join(primary_key)
    same = " and ".join(f"t.{key} = k.{key}" for key in primary_key)
    return Keeping(
        (Statement(f"create table {kept} as select {keys}, {name} from {table} where {name} is not null"), _comment(kept, identity)),
        (Statement(f"update {table} as t set {name} = k.{name} from {kept} as k where {same} and t.{name} is distinct from k.{name}"),),
    )


def table(schema: str, run_key: str, identity: str) -> Keeping:
    """Keep every row of a table (``public.t``)."""
    kept = _name(schema, run_key, identity)
    return Keeping(
        (Statement(f"create table {kept} as select * from {identity}"), _comment(kept, identity)),
        (Statement(f"insert into {identity} overriding system value select * from {kept}"),),
    )


def _name(schema: str, run_key: str, identity: str) -> str:
    """A name that is new for every plan: the same column may be kept many times."""
    return pgsql.Identifier(schema, f"kept_{sha256(f'{run_key} {identity}')[:16]}").as_string(None)


def _comment(kept: str, identity: str) -> Statement:
    text = pgsql.Literal(f"mend: values of {identity}; expires {EXPIRY_DAYS} days after the run").as_string(None)
    return Statement(f"comment on table {kept} is {text}")

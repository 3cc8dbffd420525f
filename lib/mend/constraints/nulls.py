"""NOT NULL made without blocking: a guard that lets no new NULL in, its validation, then the rule itself.  Pure.

Before PostgreSQL 18 the guard is ``CHECK (c IS NOT NULL) NOT VALID``: added in a moment, validated beside the application's work,
and proof enough for SET NOT NULL to skip its scan (PostgreSQL docs, ALTER TABLE, Notes). From 18 on it is the NOT NULL constraint
itself, NOT VALID first. With either in place an UPDATE of a row that still has a NULL fails, so the guard comes after the repair.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from psycopg import sql as pgsql

from mend.database import names
from mend.database.catalog import Change
from mend.journal import sha256
from mend.plan import Statement, Step
from mend.repairs import steps
from mend.repairs.steps import Facets, Keeper, Wanted

_OWN_NOT_VALID = 18  # the first major version with NOT NULL ... NOT VALID


@dataclass(frozen=True)
class Making:
    """``guard``: from then on no row can get a NULL; ``proof``: the scan, and the rule.  Either may be empty: it is there."""

    guard: tuple[Step, ...]
    proof: tuple[Step, ...]


def making(table: str, column: str, *, live: Facets, keeper: Keeper, major: int, named: str = "") -> Making:
    """The steps that make a quoted column of a qualified, quoted table NOT NULL, without those that are done already.

    ``named``: the quoted name of the column's NOT NULL constraint that is NOT VALID, where there is one (the catalog snapshot
    leaves such names out).
    """
    identity = f"{table}.{column}"
    standing = live.get(("not_null", identity), "")
    if standing == "not null":
        return Making((), ())
    if named or (major >= _OWN_NOT_VALID and not partitioned(table, live) and not checks(table, column, live)):
        return _by_constraint(table, column, named, live, keeper)
    return _by_check(table, column, live, keeper)


def partitioned(table: str, live: Facets) -> bool:
    """Whether a table is partitioned."""
    return " partition by " in live.get(("table", table), "")


def checks(table: str, column: str, live: Facets) -> dict[str, str]:
    """CHECK constraints that say the same as NOT NULL: identity -> definition, a valid one first."""
    wanted = f"CHECK (({column} IS NOT NULL))"
    found = {
        identity: text
        for (kind, identity), text in live.items()
        if kind == "constraint" and names.parent(identity) == table and text in (wanted, f"{wanted} NOT VALID")
    }
    return dict(sorted(found.items(), key=lambda item: item[1] != wanted))


def _by_check(table: str, column: str, live: Facets, keeper: Keeper) -> Making:
    there = checks(table, column, live)
    check = next(iter(there), f"{table}.mend_not_null_{sha256(f'{table}.{column}')[:8]}")
    name, valid = names.last(check), f"CHECK (({column} IS NOT NULL))"
    waiting = f"{valid} NOT VALID"
    guard: tuple[Step, ...] = ()
    state = dict(live)
    if check not in there:
        text = f"alter table {table} add constraint {name} check ({column} is not null) not valid"
        guard = _made(
            text, f"Let no new NULL into {table}.{column}", [Change("constraint", check, None, waiting)], state, keeper
        )
        guard = _taken_back(guard, f"alter table {table} drop constraint if exists {name}")
        state["constraint", check] = waiting
    proof: tuple[Step, ...] = ()
    if there.get(check) != valid:
        text = f"alter table {table} validate constraint {name}"
        proof = _made(
            text,
            f"Prove that no row of {table} has a NULL in {column}",
            [Change("constraint", check, waiting, valid)],
            state,
            keeper,
        )
        proof = tuple(replace(step, undo=(), irreversible="") for step in proof)  # the guard goes as a whole
        state["constraint", check] = valid
    return Making(guard, (*proof, *_set(table, column, check, check in there, state, keeper)))


def _set(table: str, column: str, check: str, keep: bool, state: Facets, keeper: Keeper) -> tuple[Step, ...]:
    """SET NOT NULL, which the valid check lets skip its scan; our own check goes in the same transaction."""
    identity = f"{table}.{column}"
    wanted = [
        Wanted(f"alter table {table} alter column {column} set not null", f"Make {identity} NOT NULL", (Change("not_null", identity, None, "not null"),))
    ]  # fmt: skip
    if not keep:
        drop = f"alter table {table} drop constraint {names.last(check)}"
        gone = (Change("constraint", check, state["constraint", check], None),)
        wanted.append(Wanted(drop, "drop the check that proved it", gone))
    made = steps.make(wanted, live=state, keeper=replace(keeper, key=f"{keeper.key}set"))
    # Not the inverse of both: to bring the check back would scan the table under ACCESS EXCLUSIVE, for nothing.
    return _taken_back(made, f"alter table {table} alter column {column} drop not null")


def _by_constraint(table: str, column: str, named: str, live: Facets, keeper: Keeper) -> Making:
    """PostgreSQL 18: the constraint itself, NOT VALID, then validated."""
    identity, waiting = f"{table}.{column}", "not null not valid"
    name = named or constraint_name(table, column)
    guard: tuple[Step, ...] = ()
    if not named:
        text = f"alter table {table} add constraint {name} not null {column} not valid"
        guard = _made(
            text, f"Let no new NULL into {identity}", [Change("not_null", identity, None, waiting)], live, keeper
        )
        guard = _taken_back(guard, f"alter table {table} alter column {column} drop not null")
    validate = f"alter table {table} validate constraint {name}"
    proof = _made(validate, f"Prove that no row of {table} has a NULL in {column}", [Change("not_null", identity, waiting, "not null")], {**live, ("not_null", identity): waiting}, keeper)  # fmt: skip
    return Making(guard, tuple(replace(step, undo=(), irreversible="") for step in proof))


def constraint_name(table: str, column: str) -> str:
    """The name of a NOT NULL constraint of our making; quoted."""
    plain = f"{names.unquoted(names.last(table))}_{names.unquoted(column)}_not_null"
    if len(plain.encode()) > 63:
        plain = f"mend_not_null_{sha256(f'{table}.{column}')[:8]}"
    return pgsql.Identifier(plain).as_string(None)


def _made(text: str, says: str, changes: Iterable[Change], live: Facets, keeper: Keeper) -> tuple[Step, ...]:
    return steps.make([Wanted(text, says, tuple(changes))], live=live, keeper=keeper)


def _taken_back(made: tuple[Step, ...], text: str) -> tuple[Step, ...]:
    """With one statement as the whole way back; it expects nothing, for how far the proof got does not matter to it."""
    last = made[-1]
    back = Step(says=text[0].upper() + text[1:], statements=(Statement(text),), locks=last.locks)
    return (*made[:-1], replace(last, undo=(back,), irreversible=""))

"""One column under two names, kept in step by a trigger: for as long as two versions of an application speak to one schema.  Pure.

The second name is a column of its own, without a default: whoever gives it a value means it, and the first one follows; else it follows the
first.  Fires last among the BEFORE triggers, so that what others make of a value is carried over too.
"""

from __future__ import annotations

from dataclasses import replace

from psycopg import sql as pgsql

from mend.batches.repair import Repair
from mend.batches.rows import step as repaired
from mend.database import names
from mend.errors import Refused
from mend.journal import sha256
from mend.mismatch.reconcile import Ground
from mend.plan import Expect, Lock, Statement, Step
from mend.repairs.steps import Facets


def made(source: str, twin: str, ground: Ground) -> tuple[Step, ...]:
    """The steps that give a column (identity, quoted) a second name (quoted): the column, its trigger, its rows.

    Raises: Refused where the column is computed, or its table is none whose rows can be changed.
    """
    whole = f"{names.parent(source)}.{twin}"
    added = _added(source, whole, ground.live)
    return (added, filled(source, whole, ground, ground.after((added,)).live))


def added(source: str, twin: str, ground: Ground) -> Step:
    """The step that adds the column and its trigger, with its way back."""
    return _added(source, f"{names.parent(source)}.{twin}", ground.live)


def _added(source: str, twin: str, live: Facets) -> Step:
    table = names.parent(source)
    definition = live.get(("column", source), "")
    if ("table", table) not in live or not definition or " generated " in definition:
        raise Refused(f"{source} is no plain column of a table, so it cannot have a second name. Nothing was changed.")
    if ("column", twin) in live:
        raise Refused(f"{twin} is there already. Nothing was changed.")
    return Step(
        says=f"Give {source} the second name {names.last(twin)}, and keep both in step",
        statements=tuple(
            map(Statement, (f"alter table {table} add column {names.last(twin)} {definition}", *_trigger(source, twin)))
        ),
        locks=(Lock(table, "ACCESS EXCLUSIVE"),),
        before=(Expect("column", source, definition), Expect("column", twin, None)),
        after=(Expect("column", source, definition), Expect("column", twin, definition)),
        undo=(gone(source, twin, definition),),
    )


def gone(source: str, twin: str, definition: str) -> Step:
    """The step that takes the second name away; nothing is lost, for the first one holds the same."""
    return Step(
        says=f"Take the second name {names.last(twin)} of {source} away",
        statements=tuple(map(Statement, dropped(source, twin))),
        locks=(Lock(names.parent(source), "ACCESS EXCLUSIVE"),),
        before=(Expect("column", source, definition), Expect("column", twin, definition)),
        after=(Expect("column", source, definition), Expect("column", twin, None)),
    )


def dropped(source: str, twin: str) -> tuple[str, ...]:
    """The statements of ``gone``."""
    table, trigger, function = names.parent(source), trigger_name(source, twin), function_name(source, twin)
    return (
        f"drop trigger if exists {trigger} on {table}",
        f"drop function if exists {function}()",
        f"alter table {table} drop column {names.last(twin)}",
    )


def function_name(source: str, twin: str) -> str:
    """Qualified: in the table's own schema."""
    return f"{names.parent(names.parent(source))}.mend_twin_{_mark(source, twin)}"


def trigger_name(source: str, twin: str) -> str:
    """Late in the alphabet: BEFORE triggers fire in the order of their names."""
    return f"zzz_mend_twin_{_mark(source, twin)}"


def _mark(source: str, twin: str) -> str:
    return sha256(f"{source} {names.last(twin)}")[:8]


def _trigger(source: str, twin: str) -> tuple[str, str, str]:
    table, one, two = names.parent(source), names.last(source), names.last(twin)
    function = function_name(source, twin)
    # Compared as text: not every type has an equality.
    body = f"""create function {function}() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $mend$
begin
  if tg_op = 'INSERT' then
    if new.{two} is not null then new.{one} := new.{two}; else new.{two} := new.{one}; end if;
  elsif cast(new.{two} as text) is distinct from cast(old.{two} as text) then new.{one} := new.{two};
  elsif cast(new.{one} as text) is distinct from cast(old.{one} as text) then new.{two} := new.{one};
  end if;
  return new;
end $mend$"""
    arguments = ", ".join(pgsql.Literal(names.unquoted(name)).as_string(None) for name in (one, two))
    trigger = f"create trigger {trigger_name(source, twin)} before insert or update on {table} for each row execute function {function}({arguments})"
    return body, f"revoke all on function {function}() from public", trigger


def filled(source: str, twin: str, ground: Ground, live: Facets) -> Step:
    """The step that gives the rows that were there their value under the second name, in batches."""
    table, one, two = names.parent(source), names.last(source), names.last(twin)
    wanted = Repair(  # no ceiling: every row gets what it has already, also those that came since
        job=f"{ground.keeper.key}t{_mark(source, twin)}"[:40], table=table, action="update", values={two: f"t.{one}"},
        where=behind(source, twin, alias="t."),
    )  # fmt: skip
    made = repaired(
        wanted, says=f"Write the values of {source} under the name {two} too", live=live, keeper=ground.keeper
    )
    # Nothing to give back: the column goes as a whole, and the old value (none) written back would be carried over to the first name.
    return replace(made, undo=(), irreversible="")


def behind(source: str, twin: str, *, alias: str = "") -> str:
    """A condition: the row's value under the second name is not that under the first."""
    one, two = f"{alias}{names.last(source)}", f"{alias}{names.last(twin)}"
    return f"cast({two} as text) is distinct from cast({one} as text)"

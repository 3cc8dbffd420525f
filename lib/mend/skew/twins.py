"""One column under two names, kept in step by triggers: for as long as two versions of an application speak to one schema.  Pure.

The second name is a column of its own, without a default: whoever gives it a value means it.  The first of the BEFORE triggers carries that
over, so that the table's own ones see it under the name that they know; the last carries back what they made of it.
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
    deaf = [
        i
        for (k, i), text in live.items()
        if k == "trigger" and names.parent(i) == table and _only_of(text, names.last(source))
    ]
    if deaf:
        raise Refused(
            f"the trigger {deaf[0]} fires on UPDATE OF {names.last(source)}, which a write under the second name does not set off: "
            "let it fire on every UPDATE first. Nothing was changed."
        )
    return Step(
        says=f"Give {source} the second name {names.last(twin)}, and keep both in step",
        statements=tuple(
            map(
                Statement,
                (
                    f"alter table {table} add column {names.last(twin)} {definition}",
                    *_granted(source, twin, live),
                    *_triggers(source, twin),
                ),
            )
        ),
        locks=(Lock(table, "ACCESS EXCLUSIVE"),),
        before=(Expect("column", source, definition), Expect("column", twin, None)),
        after=(Expect("column", source, definition), Expect("column", twin, definition)),
        undo=(gone(source, twin, definition),),
    )


def _only_of(trigger: str, column: str) -> bool:
    """Whether a trigger fires for an UPDATE only where it names this column among others."""
    words = [token[0] for token in names.TOKEN.finditer(trigger) if not token[0].isspace()]
    at = words.index("OF") if "OF" in words else len(words)
    return column in words[at : words.index("ON", at) if "ON" in words[at:] else at]


def _granted(source: str, twin: str, live: Facets) -> tuple[str, ...]:
    """Who has a privilege on the first column has it on the second."""
    table, name, label = names.parent(source), names.last(twin), f"column {source} to "
    return tuple(
        f"grant {word} ({name}) on {table} to {identity.removeprefix(label)}{' with grant option' * bool(option)}"
        for (kind, identity), privileges in sorted(live.items())
        if kind == "grant" and identity.startswith(label)
        for word, option, _ in (one.partition(" with grant option") for one in privileges.split(", "))
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
    table, function = names.parent(source), function_name(source, twin)
    return (
        *(f"drop trigger if exists {trigger} on {table}" for trigger in trigger_names(source, twin)),
        f"drop function if exists {function}()",
        f"alter table {table} drop column {names.last(twin)}",
    )


def function_name(source: str, twin: str) -> str:
    """Qualified: in the table's own schema."""
    return f"{names.parent(names.parent(source))}.mend_twin_{_mark(source, twin)}"


def trigger_names(source: str, twin: str) -> tuple[str, str]:
    """Quoted; the first and the last in the alphabet: BEFORE triggers fire in the order of their names."""
    return f'"!mend_twin_{_mark(source, twin)}"', f"zzz_mend_twin_{_mark(source, twin)}"


def _mark(source: str, twin: str) -> str:
    return sha256(f"{source} {names.last(twin)}")[:8]


def _triggers(source: str, twin: str) -> tuple[str, ...]:
    table, one, two = names.parent(source), names.last(source), names.last(twin)
    function = function_name(source, twin)
    # Compared as text: not every type has an equality. With all the digits of a float.
    body = f"""create function {function}() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp set extra_float_digits = 3 as $mend$
begin
  if tg_argv[2] = 'last' then new.{two} := new.{one};
  elsif tg_op = 'INSERT' then
    if new.{two} is not null then new.{one} := new.{two}; end if;
  elsif cast(new.{two} as text) is distinct from cast(old.{two} as text) then new.{one} := new.{two};
  end if;
  return new;
end $mend$"""
    columns = ", ".join(pgsql.Literal(names.unquoted(name)).as_string(None) for name in (one, two))
    made = (
        f"create trigger {trigger} before insert or update on {table} for each row execute function {function}({columns}, '{when}')"
        for trigger, when in zip(trigger_names(source, twin), ("first", "last"), strict=True)
    )
    # Always: also for what logical replication writes here.
    always = (f"alter table {table} enable always trigger {trigger}" for trigger in trigger_names(source, twin))
    return body, f"revoke all on function {function}() from public", *made, *always


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

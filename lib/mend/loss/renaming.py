"""A revision that renames what it would drop: the same statements but for those, and the way back in milliseconds.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from mend.change import ddl
from mend.database import names
from mend.database.catalog import Change
from mend.repairs.halfway import Facts, Seen
from mend.replays.recording import Statement

LONGEST = 63  # bytes of a name


class NotRenamable(Exception):
    """Why a revision cannot be run with renames in place of its drops."""


def renamed(facts: Facts) -> tuple[Facts, tuple[str, ...]]:
    """The facts with renames in place of drops, and the DROP statements that are left for later.

    Raises: NotRenamable.
    """
    seen: list[Seen] = []
    later: list[str] = []
    for one in facts.seen:
        lost = ddl.losses([c.reversed() for c in one.statement.changes]) if one.ran is not True else ()
        if not lost:
            seen.append(one)
            continue
        for part, drop in _instead(one, lost, facts):
            seen.append(replace(one, statement=part))
            later += [drop] if drop else []
    return replace(facts, seen=tuple(seen)), tuple(later)


def _instead(one: Seen, lost: tuple[str, ...], facts: Facts) -> Iterator[tuple[Statement, str]]:
    """The statements in place of one that drops, each with the DROP that it leaves for later, or ''."""
    changes = {(c.kind, c.identity): c for c in one.statement.changes}
    others = [
        c for c in one.statement.changes
        if c.after is not None or not any(_belongs(c, identity) for identity in lost)
    ]  # fmt: skip
    if others:
        raise NotRenamable(
            f"operation {one.statement.operation} ({one.statement.says}) does more than drop: {others[0].identity}"
        )
    for identity in lost:
        kind = "table" if ("table", identity) in changes else "column"
        definition = facts.live.get((kind, identity))
        if definition is None:
            raise NotRenamable(f"{identity} is not in the database")
        if kind == "column" and ("not_null", identity) in facts.live and ("default", identity) not in facts.live:
            yield _nullable(one, identity, facts), ""
        yield _rename(one, kind, identity, definition, facts)


def _belongs(change: Change, identity: str) -> bool:
    """Whether a facet goes because this goes: it is the thing, on it, or of kinds that go along with a column."""
    return identity in change.identity or change.kind in ("index", "constraint", "sequence", "sequence_owner", "statistics", "trigger", "owner", "comment", "grant")  # fmt: skip


def _nullable(one: Seen, identity: str, facts: Facts) -> Statement:
    table, column = names.parent(identity), names.last(identity)
    return replace(
        one.statement,
        sql=f"alter table {table} alter column {column} drop not null",
        says=f"Let {identity} be NULL: nobody fills it any more",
        changes=(Change("not_null", identity, facts.live["not_null", identity], None),),
        rendered=True,
    )


def _rename(one: Seen, kind: str, identity: str, definition: str, facts: Facts) -> tuple[Statement, str]:
    holder, own = names.parent(identity), names.last(identity)
    new = _free(kind, holder, own, facts)
    if kind == "column":
        sql, drop = f"alter table {holder} rename column {own} to {new}", f"alter table {holder} drop column {new}"
    else:
        sql, drop = f"alter table {identity} rename to {new}", f"drop table {holder}.{new}"
    statement = replace(
        one.statement,
        sql=sql,
        says=f"Rename {identity} to {new} instead of dropping it",
        changes=(Change(kind, identity, definition, None), Change(kind, f"{holder}.{new}", None, definition)),
        rendered=True,
    )
    return statement, drop


def _free(kind: str, holder: str, own: str, facts: Facts) -> str:
    """A name that nothing has, quoted where PostgreSQL prints it quoted."""
    assert facts.revision is not None
    suffix = f"_gone_{re.sub(r'[^0-9a-z]', '', facts.revision.id.lower())[:8]}"
    bare = names.unquoted(own).encode()[: LONGEST - len(suffix)].decode(errors="ignore") + suffix
    name = bare if re.fullmatch(r"[a-z_][a-z0-9_]*", bare) else '"' + bare.replace('"', '""') + '"'
    if any(one == f"{holder}.{name}" for _, one in facts.live):
        raise NotRenamable(f"{kind} {holder}.{name} is there already")
    return name

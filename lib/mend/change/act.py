"""One statement among those that make a change, and the patterns that most kinds of facets share. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from mend import errors
from mend.database import names
from mend.database.catalog import Change


class Phase(IntEnum):
    """First everything that goes, then what changes in place, then everything that comes."""

    DROP = 0
    ALTER = 1
    CREATE = 2


@dataclass(frozen=True)
class Act:
    """One statement, and what it acts on; ``kind`` and what ``text`` mentions decide its place in its phase."""

    phase: Phase
    kind: str
    identity: str
    sql: str
    text: str = ""


Sql = str | tuple[str, ...]


def literal(text: str) -> str:
    """A string constant that means the same whatever ``standard_conforming_strings`` says."""
    quoted = text.replace("'", "''")
    return f"'{quoted}'" if "\\" not in text else "E'" + quoted.replace("\\", "\\\\") + "'"


def refuse(change: Change, why: str) -> errors.NotInvertible:
    """The error for a change that cannot be made from what is known."""
    return errors.NotInvertible(
        f"No SQL is known that brings {change.kind} {change.identity} to {change.after or 'nothing'!r}: {why}. "
        "Nothing was changed. Decide by hand, or go forward instead.",
        kind=change.kind, identity=change.identity,
    )  # fmt: skip


def made(change: Change, *, create: Sql, drop: Sql, alter: Sql | None = None) -> tuple[Act, ...]:
    """The usual pattern: create it, drop it, or alter it (dropping and creating it when there is no other way)."""
    if change.before is None:
        return acted(change, Phase.CREATE, create)
    if change.after is None:
        return acted(change, Phase.DROP, drop)
    if alter is not None:
        return acted(change, Phase.ALTER, alter)
    return acted(change, Phase.DROP, drop) + acted(change, Phase.CREATE, create)


def acted(change: Change, phase: Phase, sql: Sql, kind: str = "") -> tuple[Act, ...]:
    statements = (sql,) if isinstance(sql, str) else sql
    text = change.before if phase is Phase.DROP else change.after
    return tuple(Act(phase, kind or change.kind, change.identity, statement, text or "") for statement in statements)


def held(identity: str) -> tuple[str, str, str]:
    """``public.t.c`` -> ("public.t", "c", ""); ``public.t.c.statistics`` -> ("public.t", "c", "statistics")."""
    schema, relation, name, *rest = names.split(identity)
    return f"{schema}.{relation}", name, ".".join(rest)

"""The statements of the pending revisions, each with the phase and the way in which it is made.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mend.database import names
from mend.database.catalog import Change
from mend.journal import sha256
from mend.repairs import halfway
from mend.replays.recording import Statement
from mend.skew.safety import Judged, Phase, renamed_of
from mend.skew.sides import Facts

Kind = Literal["as_is", "twin", "new_not_null", "not_null", "rule", "rows", "drop_column"]
_ORDER: tuple[Phase, ...] = ("expand", "backfill", "contract")


@dataclass(frozen=True)
class Part:
    """One pending statement.  ``phase``: where it is made as it is recorded; the other kinds have something to do in several.

    ``column``: what it is about, as it is called at the end; ``source``: as a renamed column is called now.  ``must_give``: a column that goes is
    NOT NULL without a default, so that who does not know it cannot insert.
    """

    statement: Statement
    phase: Phase
    kind: Kind
    column: str = ""
    source: str = ""
    definition: str = ""
    must_give: bool = False

    @property
    def table(self) -> str:
        """The table that it is about."""
        return names.parent(self.column)


def parts(facts: Facts) -> tuple[Part, ...]:
    """Every pending statement, in the history's order."""
    by_statement: dict[int, list[Judged]] = {}
    for one in facts.judged:
        by_statement.setdefault(id(one.statement), []).append(one)
    found: list[Part] = []
    for statement in (s for one in facts.operations() for s in one.statements):
        part = _part(statement, by_statement.get(id(statement), []), facts)
        late = max((_ORDER.index(one.phase) for one in found if _leans_on(statement, one)), default=0)
        if late > _ORDER.index(part.phase):
            part = Part(statement, _ORDER[late], "rows" if part.kind == "rows" else "as_is")
        found.append(part)
    return tuple(found)


def _part(statement: Statement, effects: Sequence[Judged], facts: Facts) -> Part:
    phase: Phase = max((one.phase for one in effects), key=_ORDER.index, default="expand")
    changes = statement.changes
    if not changes:
        return Part(statement, "backfill", "rows") if statement.data else Part(statement, "expand", "as_is")
    renamed = renamed_of(changes)
    if renamed and renamed[0].kind == "column":
        old, new = renamed
        return Part(statement, "contract", "twin", new.identity, old.identity, old.before or "")
    new_ = [c for c in changes if c.kind == "column" and c.before is None]
    if phase == "contract" and len(new_) == 1 and all(c.kind in ("column", "not_null") for c in changes):
        return Part(statement, "contract", "new_not_null", new_[0].identity, definition=new_[0].after or "")
    if len(changes) == 1 and changes[0].kind == "not_null" and changes[0].after == "not null":
        return Part(statement, "contract", "not_null", changes[0].identity)
    if (
        len(changes) == 1
        and changes[0].kind == "constraint"
        and changes[0].after
        and changes[0].before is None
        and phase == "contract"
    ):
        return Part(statement, "contract", "rule", changes[0].identity)
    gone = [c for c in changes if c.kind == "column" and c.after is None]
    if len(gone) == 1 and phase == "contract":
        return Part(statement, "contract", "drop_column", gone[0].identity, must_give=_must_give(gone[0], facts))
    return Part(statement, phase, "as_is")


def _must_give(gone: Change, facts: Facts) -> bool:
    live = facts.live
    return (
        live.get(("not_null", gone.identity)) == "not null"
        and ("default", gone.identity) not in live
        and " generated " not in f" {gone.before} "
    )


def _leans_on(statement: Statement, earlier: Part) -> bool:
    """Whether a statement speaks of something that an earlier one makes, in a later phase than its own could be.

    What a twin or a new column makes is there from the expansion on; not so its rule, nor what comes with a contract.
    """
    if earlier.kind in ("twin", "new_not_null") and not statement.changes:
        return False  # rows may be written as soon as the column is there
    if earlier.kind == "new_not_null":
        return False
    made = [
        c
        for c in earlier.statement.changes
        if c.before is None and c.kind in ("table", "column", "enum", "function", "view", "domain")
    ]
    if earlier.kind in ("rule", "not_null", "drop_column", "rows") or not made:
        return False
    words = names.words(statement.sql)
    tables = {halfway.relation_of(c) for c in statement.changes}
    return any(
        names.unquoted(names.last(names.bare(c.identity))) in {names.unquoted(word) for word in words}
        and (c.kind != "column" or names.parent(c.identity) in tables)
        for c in made
    )


def change_id(facts: Facts) -> str:
    """What the phases of one change have in common: its revisions, and the SQL of each."""
    sql = [s.sql for one in facts.operations() for s in one.statements]
    return sha256(f"{facts.pending} {sql}")[:16]

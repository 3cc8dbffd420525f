"""The SQL of a way down, piece by piece, with what each changes in the live catalog; and what hangs on an object and goes with it.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mend.change import ddl
from mend.change.kept import Facets
from mend.database import catalog, sqltext
from mend.database.catalog import Change
from mend.mismatch import drift
from mend.repairs import steps
from mend.replays.downgrades import Proof
from mend.replays.recording import Statement
from mend.rollback import dependents
from mend.rollback.dependents import Key

#: Objects that everything that names them belongs to.
_WHOLE = frozenset(
    (
        "table",
        "foreign_table",
        "view",
        "matview",
        "sequence",
        "function",
        "aggregate",
        "enum",
        "domain",
        "composite",
        "range",
        "schema",
    )
)


@dataclass(frozen=True)
class Piece:
    """Some SQL of a way down with what it changes here: a statement of downgrade(), or what takes the rest of a revision back.

    ``changes``: from the live state at that point.  ``silent``: those that no text names, because PostgreSQL drops them along.
    ``lacking``: what it drops and is not here.
    """

    revision: str
    says: str
    texts: tuple[str, ...]
    changes: tuple[Change, ...]
    statement: Statement | None = None
    silent: tuple[Change, ...] = ()
    lacking: tuple[Change, ...] = ()


def pieces_of(
    proof: Proof, state: Mapping[Key, str], *, scratch: str, migrator: str
) -> tuple[list[Piece], dict[Key, str]]:
    """The SQL that takes one revision back here, and the catalog behind it.

    The statements of downgrade() as recorded, then what it leaves; where it fails in scratch, what upgrade() made, taken back as a whole.
    A statement that says CASCADE names what it drops instead: it would take along whatever hangs there by then.
    """
    found: list[Piece] = []
    now = dict(state)

    def add(says: str, texts: Sequence[str], changes: Iterable[Change], statement: Statement | None = None) -> None:
        nonlocal now
        mine = [_as_here(c, scratch, migrator) for c in changes]
        moved = tuple(
            Change(c.kind, c.identity, now.get((c.kind, c.identity)), c.after)
            for c in mine
            if now.get((c.kind, c.identity)) != c.after
        )
        lacking = tuple(
            c for c in mine if c.before is not None and (c.kind, c.identity) not in now and ddl.is_object(c.kind)
        )
        found.append(Piece(proof.revision, says, tuple(texts), moved, statement, lacking=lacking))
        now = steps.moved(now, moved)

    if proof.failed:
        back = [_as_here(c.reversed(), scratch, migrator) for c in proof.made]
        moved = [Change(c.kind, c.identity, now.get((c.kind, c.identity)), c.after) for c in back]
        moved = [c for c in moved if c.before != c.after]
        texts = ddl.filled(ddl.forward_of(moved, live=steps.frame(now))) if moved else ()
        add(f"Take back what {proof.revision} made", texts, moved)
        return found, now
    for one in proof.statements:
        if says_cascade(one.sql):
            back = [_as_here(c, scratch, migrator) for c in one.changes]
            named = [Change(c.kind, c.identity, now.get((c.kind, c.identity)), c.after) for c in back]
            texts = ddl.filled(ddl.forward_of((c for c in named if c.before != c.after), live=steps.frame(now)))
            add(one.says, texts, one.changes, one)
        else:
            add(one.says, (one.sql,), one.changes, one)
    if proof.left:
        rest = [c.reversed() for c in proof.left]
        texts = ddl.filled(ddl.forward_of(rest, live=steps.frame(now)))
        add(f"Take back what downgrade() of {proof.revision} leaves", texts, rest)
    return found, now


def says_cascade(sql: str) -> bool:
    """Whether a statement drops what depends on what it drops, unseen.

    >>> says_cascade("DROP VIEW v CASCADE"), says_cascade("alter table t add foreign key (a) references u on delete cascade")
    (True, False)
    """
    return any(re.search(r"\bdrop\b.*\bcascade$", text) for text in sqltext.statements(sql))


def _as_here(change: Change, scratch: str, migrator: str) -> Change:
    """The change with the scratch server's own role replaced by the one that runs the migrations here."""
    if change.kind not in catalog.ROLE_KINDS or scratch == migrator:
        return change
    key = (change.kind, change.identity)
    sides = [
        drift.as_role({key: text}, scratch=scratch, migrator=migrator) if text is not None else {}
        for text in (change.before, change.after)
    ]
    identity = next((one[1] for side in sides for one in side), change.identity)
    before, after = (next(iter(side.values()), None) for side in sides)
    return Change(change.kind, identity, before, after)


def gone(changes: Iterable[Change]) -> list[Key]:
    """The objects that changes take away, without those that go with a bigger one."""
    return [
        (c.kind, c.identity)
        for c in changes
        if c.after is None and c.before is not None and c.kind in dependents.DROPPED
    ]


def altered(changes: Iterable[Change]) -> list[Key]:
    """The columns that change their type."""
    return [("column", c.identity) for c in changes if c.kind == "column" and c.before and c.after]


def settings_reset(changes: Iterable[Change]) -> list[Key]:
    """What ALTER TYPE sets back to the default of the new type."""
    return [("column_setting", f"{i}.{one}") for _, i in altered(changes) for one in ("storage", "compression")]


Held = Mapping[str, Sequence[Key]]


def held(live: Facets) -> Held:
    """By identity: the facets that name it as what they belong to."""
    found: dict[str, list[Key]] = {}
    for key, text in live.items():
        for one in ddl.holders(*key, text):
            found.setdefault(one, []).append(key)
    return found


def facets_of(objects: Iterable[Key], live: Facets, by_holder: Held | None = None) -> list[tuple[Key, str]]:
    """These objects with all that hangs on them and goes with them: columns' comments, grants, owners, options, indexes, triggers."""
    by_holder = held(live) if by_holder is None else by_holder
    todo = [key for key in dict.fromkeys(objects) if key in live]
    found = {key: live[key] for key in todo}
    while todo:
        kind, identity = todo.pop(0)
        for key in by_holder.get(identity, ()) if ddl.is_object(kind) else ():
            if key not in found and _belongs(key, kind):
                found[key] = live[key]
                todo.append(key)
    return list(found.items())


def labels_of(objects: Iterable[Key], live: Facets) -> dict[str, str]:
    """Owners, grants, comments and options of these objects and of what hangs on them, by name."""
    found = facets_of(objects, live)
    return {f"{kind} {identity}": text for (kind, identity), text in found if kind in ("grant", "owner", "comment", "option")}  # fmt: skip


def _belongs(key: Key, owner: str) -> bool:
    """Whether a facet that names an owner belongs to an owner of this kind: a column and a constraint may share a name."""
    kind, identity = key
    if owner in _WHOLE:
        return True
    word = identity.split(" ", 1)[0] if kind in ("comment", "owner", "grant") else kind.removesuffix("_state")
    return word == owner or (owner == "column" and kind in ("default", "not_null", "column_setting", "sequence_owner"))


def hangs_on(change: Change, objects: Iterable[str]) -> bool:
    """Whether a facet is of one of these objects, or of something on it."""
    return bool(ddl.holders(change.kind, change.identity, change.after or change.before or "") & set(objects))

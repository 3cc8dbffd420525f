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
        texts = filled(ddl.forward_of(moved, live=steps.frame(now))) if moved else ()
        add(f"Take back what {proof.revision} made", texts, moved)
        return found, now
    for one in proof.statements:
        if says_cascade(one.sql):
            back = [_as_here(c, scratch, migrator) for c in one.changes]
            named = [Change(c.kind, c.identity, now.get((c.kind, c.identity)), c.after) for c in back]
            texts = filled(ddl.forward_of((c for c in named if c.before != c.after), live=steps.frame(now)))
            add(one.says, texts, one.changes, one)
        else:
            add(one.says, (one.sql,), one.changes, one)
    if proof.left:
        rest = [c.reversed() for c in proof.left]
        texts = filled(ddl.forward_of(rest, live=steps.frame(now)))
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


def facets_of(objects: Iterable[Key], live: Facets) -> list[tuple[Key, str]]:
    """These objects with all that hangs on them and goes with them: columns' comments, grants, owners, options, indexes, triggers."""
    found = {key: live[key] for key in dict.fromkeys(objects) if key in live}
    while True:
        kinds: dict[str, set[str]] = {}
        for kind, identity in found:
            if ddl.is_object(kind):
                kinds.setdefault(identity, set()).add(kind)
        fresh = {
            key: text
            for key, text in live.items()
            if key not in found and any(_belongs(key, kinds[one]) for one in ddl.holders(*key, text) if one in kinds)
        }
        if not fresh:
            return list(found.items())
        found.update(fresh)


def _belongs(key: Key, kinds: set[str]) -> bool:
    """Whether a facet that names an owner belongs to an owner of these kinds: a column and a constraint may share a name."""
    kind, identity = key
    if kinds & _WHOLE:
        return True
    word = identity.split(" ", 1)[0] if kind in ("comment", "owner", "grant") else kind.removesuffix("_state")
    return word in kinds or ("column" in kinds and kind in ("default", "not_null", "column_setting", "sequence_owner"))


def hangs_on(change: Change, objects: Iterable[str]) -> bool:
    """Whether a facet is of one of these objects, or of something on it."""
    return bool(ddl.holders(change.kind, change.identity, change.after or change.before or "") & set(objects))


_ADDED = re.compile(rf"alter table (?P<table>{sqltext.NAME}) add column (?P<column>{sqltext.PART}) ")


def filled(texts: Sequence[str]) -> tuple[str, ...]:
    """The SQL with a column's default and NOT NULL in the statement that adds it, so that every row has a value at once."""
    found = list(texts)
    for n, text in enumerate(found):
        added = _ADDED.match(text)
        if added is None:
            continue
        head = f"alter table {added['table']} alter column {added['column']} set "
        later = [one for one in found[n + 1 :] if one.startswith((f"{head}default ", f"{head}not null"))]
        if any(one.startswith(f"{head}default ") for one in later):
            found[n] = text + "".join(f" {one.removeprefix(head)}" for one in sorted(later))
            found = [one for one in found if one not in later]
    return tuple(found)

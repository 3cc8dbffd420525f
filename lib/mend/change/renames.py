"""Telling a rename from a drop and a creation: in a catalog diff they look alike, and only one of them keeps the rows. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from mend.change.belonging import holders
from mend.database import names
from mend.database.catalog import Change

#: The word that each kind is renamed by.
_RENAMED = {
    "table": "table", "foreign_table": "table", "view": "table", "matview": "table", "sequence": "sequence", "index": "index",
    "enum": "type", "domain": "domain", "composite": "type", "range": "type", "function": "routine", "schema": "schema",
    "column": "column", "constraint": "constraint", "trigger": "trigger", "policy": "policy", "rule": "rule",
}  # fmt: skip
#: Kinds whose text PostgreSQL writes anew after a rename, so that it need not be the old text with one name replaced.
_DEPARSED = frozenset(
    [
        "view",
        "matview",
        "rule",
        "function",
        "policy",
        "trigger",
        "constraint",
        "index",
        "statistics",
        "table",
        "column",
        "default",
    ]
)


def as_rename(changes: Sequence[Change]) -> tuple[str, ...]:
    """The one RENAME that explains every change of the list, if there is exactly one."""
    found: list[tuple[str, ...]] = []
    gone = [c for c in changes if c.after is None and c.kind in _RENAMED]
    come = [c for c in changes if c.before is None and c.kind in _RENAMED]
    for old in gone:
        for new in come:
            same_holder = names.parent(old.identity) == names.parent(new.identity)
            if old.kind == new.kind and same_holder and _explains(old, new, changes):
                found.append((_rename(old, new),))
    return found[0] if len(found) == 1 else ()


def explained(old: Change, new: Change, changes: Sequence[Change]) -> list[Change]:
    """Those of the changes that one RENAME of ``old`` to ``new`` makes; () where something that is named after ``old``, or a column, would be left."""
    a, b = names.bare(old.identity), names.bare(new.identity)
    now = {(c.kind, c.identity): c for c in changes if c.after is not None}
    found: list[Change] = []
    for change in changes:
        there = now.get((change.kind, names.substitute(change.identity, a, b)))
        if change.before is not None and there is not None and _became(change, str(there.after), a, b):
            found += dict.fromkeys([change, there])
    named = {
        c: {c.identity, *holders(c.kind, c.identity, c.before or c.after or "")} for c in changes if c not in found
    }
    left = [
        c for c, about in named.items() if (a in about and c.kind != "index") or (b in about and c.kind == "column")
    ]
    return found if not left and as_rename(found) else []


def _became(change: Change, after: str, a: str, b: str) -> bool:
    """Whether a facet is after the rename of ``a`` to ``b`` as it is now."""
    before = str(change.before)
    follows = change.kind in _DEPARSED and names.last(a) in names.words(before) and names.last(b) in names.words(after)
    renamed = names.substitute(change.identity, a, b) != change.identity
    return after == names.substitute(before, a, b) or (renamed and (after == before or follows))


def _explains(old: Change, new: Change, changes: Sequence[Change]) -> bool:
    """Whether renaming ``old`` to ``new`` turns every 'before' of the list into its 'after'."""
    a, b = names.bare(old.identity), names.bare(new.identity)
    now = {(c.kind, c.identity): c.after for c in changes if c.after is not None}
    for change in changes:
        if change.before is None:
            continue
        identity = names.substitute(change.identity, a, b)
        after = now.pop((change.kind, identity), None)
        follows = (
            change.kind in _DEPARSED
            and names.last(a) in names.words(change.before)
            and names.last(b) in names.words(after or "")
        )
        if after is None or (after != names.substitute(change.before, a, b) and after != change.before and not follows):
            return False
    return not now


def _rename(old: Change, new: Change) -> str:
    word, name = _RENAMED[old.kind], names.last(names.bare(new.identity))
    holder, own = names.parent(old.identity), names.last(old.identity)
    if word in ("column", "constraint"):
        return f"alter table {holder} rename {word} {own} to {name}"
    if word in ("trigger", "policy", "rule"):
        return f"alter {word} {own} on {holder} rename to {name}"
    return f"alter {word} {old.identity} rename to {name}"

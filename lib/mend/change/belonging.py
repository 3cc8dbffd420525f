"""What belongs to what in a catalog snapshot: which facets go, come or hide together with an object. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mend.database import names
from mend.database.catalog import Change

#: Facets that are named after their relation and then themselves, and those that are named after their relation alone.
_PARTS = frozenset(
    (
        "column",
        "default",
        "not_null",
        "constraint",
        "trigger",
        "trigger_state",
        "policy",
        "rule",
        "option",
        "column_setting",
        "foreign_option",
    )
)
_PROPERTIES = frozenset(("row_security", "replica_identity", "partition", "inherits", "tablespace"))


def holders(kind: str, identity: str, definition: str) -> frozenset[str]:
    """The objects that a facet belongs to: when one of them is dropped, the facet goes with it.

    >>> sorted(holders("default", "public.t.c", "0"))
    ['public.t', 'public.t.c']
    >>> sorted(holders("comment", "constraint ck on public.t", "why"))
    ['public.t', 'public.t.ck']
    """
    if kind in ("comment", "owner", "grant"):
        return _holders_of_label(identity.rpartition(" to ")[0] if kind == "grant" else identity)
    parts = names.split(identity)
    if kind in _PARTS or kind == "domain_constraint":
        found = {".".join(parts[:2])} | ({".".join(parts[:3])} if kind not in ("option", "constraint") else set())
        return frozenset(found - ({identity} if is_object(kind) else set()))
    if kind in _PROPERTIES:
        return frozenset({identity})
    if kind == "index" and (table := index_table(definition)):
        return frozenset({table})
    if kind == "sequence_owner":
        return frozenset({identity, definition, names.parent(definition)})
    return frozenset()


def index_table(definition: str) -> str:
    """The table, or materialized view, that an index definition is about.

    >>> index_table('CREATE UNIQUE INDEX ix ON public."T" USING btree (a)')
    'public."T"'
    """
    match = re.match(rf"CREATE (?:UNIQUE )?INDEX {_CHAIN} ON (?:ONLY )?({_CHAIN}) USING ", definition)
    return match[1] if match else ""


_CHAIN = r'(?:"(?:[^"]|"")*"|[^\s."]+)(?:\.(?:"(?:[^"]|"")*"|[^\s."]+))*'


def _holders_of_label(label: str) -> frozenset[str]:
    """``column public.t.c`` belongs to the column and its table; ``trigger tr on public.t`` to the trigger and its table."""
    word, _, rest = label.partition(" ")
    if " on " in rest and (match := re.fullmatch(rf"({_CHAIN}) on (?:domain )?({_CHAIN})", rest)):
        return frozenset({match[2], f"{match[2]}.{match[1]}"})
    rest = (
        rest.removeprefix("view ")
        if word in ("materialized",)
        else rest.removeprefix("table ")
        if word == "foreign"
        else rest
    )
    if word in ("function", "procedure", "aggregate"):
        rest = re.sub(r",(?! )", ", ", rest)
    return frozenset({rest, names.parent(rest)} if word == "column" else {rest})


def without_covered(changes: Sequence[Change]) -> list[Change]:
    """Leave out what goes along with something bigger that is dropped."""
    gone, come = (
        {c.identity for c in changes if getattr(c, side) is None and is_object(c.kind)} for side in ("after", "before")
    )
    owned = {
        c.identity for c in changes if c.kind == "sequence_owner" and c.before and holders(c.kind, "", c.before) & gone
    }
    detached = (
        {c.identity for c in changes if c.kind in ("partition", "inherits") and not (c.before and c.after)}
        - gone
        - come
    )

    def covered(change: Change) -> bool:
        if change.after is None and change.before is not None:
            if change.kind in ("sequence", "sequence_owner") and change.identity in owned:
                return True
            if change.kind == "sequence_owner" and change.identity in gone:
                return True
            if change.kind != "sequence_owner" and holders(change.kind, change.identity, change.before) & gone:
                return True
        return _comes_with_parent(change, detached)

    return [change for change in changes if not covered(change)]


def is_object(kind: str) -> bool:
    """Whether a kind is a thing of its own, on which others can hang, and not a property."""
    return kind not in {"default", "not_null", "option", "row_security", "replica_identity", "partition", "inherits"} | {
        "column_setting", "trigger_state", "sequence_owner", "comment", "owner", "grant", "tablespace", "foreign_option", "default_privilege",
        "setting",
    }  # fmt: skip


def _comes_with_parent(change: Change, moved: set[str]) -> bool:
    """ATTACH and INHERIT hide a table's columns, constraints and indexes behind its parent's, DETACH shows them again: no work."""
    if not moved or (change.before is None) == (change.after is None):
        return False
    inner = change.kind in ("column", "default", "not_null", "constraint", "index")
    return inner and bool(holders(change.kind, change.identity, change.before or change.after or "") & moved)

"""The foreign keys that point at a table, read from a catalog snapshot, and conditions about the rows that refer.  Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mend.database import names

if TYPE_CHECKING:
    from mend.batches.repair import Repair
    from mend.change.kept import Facets


@dataclass(frozen=True)
class Reference:
    """A foreign key; ``on_delete``: ``NO ACTION``, ``RESTRICT``, ``CASCADE``, ``SET NULL`` or ``SET DEFAULT``.

    ``set_columns``: those that SET NULL or SET DEFAULT sets (PostgreSQL 15 and newer may name some of them).
    """

    identity: str
    table: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    on_delete: str
    set_columns: tuple[str, ...]

    def among(self, parents: Repair) -> str:
        """What is true of a row ``t`` that refers to one of the rows which ``parents`` is about."""
        source = f"(select {', '.join(f't.{own} as c{n}' for n, own in enumerate(self.columns, 1))}) as c"
        same = [f"t.{key} = c.c{n}" for n, key in enumerate(self.parent_columns, 1)]
        listed = f", ({parents.work}) as w" if parents.work else ""
        matched = [f"t.{column} = w.k{n}" for n, column in enumerate(parents.match, start=1)]
        conditions = " and ".join([*same, *matched, f"({parents.where})"])
        # The row's own columns are carried in under another alias: inside, t is the row that is referred to.
        return f"exists (select from {source} cross join lateral (select from {self.parent} as t{listed} where {conditions}) as p)"

    def exists(self) -> str:
        """What is true of a row ``t`` that some row refers to."""
        same = " and ".join(f"c.{own} = t.{key}" for own, key in zip(self.columns, self.parent_columns, strict=True))
        return f"exists (select from {self.table} as c where {same})"


_ON_DELETE = re.compile(
    r" ON DELETE (?P<what>CASCADE|RESTRICT|SET NULL|SET DEFAULT|NO ACTION)(?: (?P<columns>\(.*?\)))?"
)


def references(parent: str, live: Facets) -> tuple[Reference, ...]:
    """Every foreign key that points at a table, sorted by its identity."""
    found = (
        read(identity, definition)
        for (kind, identity), definition in sorted(live.items())
        if kind == "constraint" and definition.startswith("FOREIGN KEY ")
    )
    return tuple(one for one in found if one.parent == parent)


def read(identity: str, definition: str) -> Reference:
    """A foreign key from its definition, as pg_get_constraintdef prints it."""
    pieces = names.pieces(definition)  # FOREIGN KEY (a, b) REFERENCES public . t (c, d) ON DELETE ..
    groups = [n for n, piece in enumerate(pieces) if piece.startswith("(")]
    own, keys = (names.items(pieces[n]) for n in groups[:2])
    parent = "".join(pieces[groups[0] + 2 : groups[1]])
    rule = _ON_DELETE.search(definition)
    some = names.items(rule["columns"]) if rule and rule["columns"] else own
    return Reference(identity, names.parent(identity), own, parent, keys, rule["what"] if rule else "NO ACTION", some)

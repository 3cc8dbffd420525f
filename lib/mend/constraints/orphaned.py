"""What is known of rows whose parent is missing: what the runbook shows and its ways out are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mend.batches.deletion import Reference
from mend.constraints.proposals import Objection
from mend.repairs.foreign_keys import NOT_VALID, Key
from mend.repairs.steps import Facets, Keeper
from mend.repairs.subject import Subject
from mend.values.counting import Count
from mend.values.expressions import Expression


@dataclass(frozen=True)
class Referring:
    """A key by which rows refer to what a delete would take, how many do, and whether an index finds them."""

    key: Reference
    rows: Count
    indexed: bool

    @property
    def bars(self) -> bool:
        """Whether these rows keep the others from being deleted."""
        return self.key.on_delete in ("NO ACTION", "RESTRICT") and self.rows.rows != 0


@dataclass(frozen=True)
class Facts:
    """Everything that a diagnosis shows and a plan is made from.

    ``count``: rows that break the key; ``missing``: keys that no parent has; ``in_part``: rows that MATCH FULL refuses whatever the
    parent holds; ``levels``: of a key that refers to its own table, how many rows are so many references below an orphan.
    ``ahead``: the sequence that will give out the missing keys a second time. ``others``: what else of the revision rows are in the way of.
    ``obstacle``: why the key cannot be made at all, whatever becomes of the rows.
    """

    subject: Subject
    key: Key
    count: Count
    missing: Count
    in_part: int
    sample: pd.DataFrame
    parent_keys: pd.DataFrame
    indexes: pd.DataFrame
    bypasses: pd.DataFrame
    sizes: pd.DataFrame
    referring: tuple[Referring, ...]
    levels: tuple[int, ...]
    obstacle: str
    stub: Mapping[str, Expression]
    objections: Mapping[str, tuple[Objection, ...]]
    ahead: str
    others: tuple[str, ...]
    at_most: int
    major: int
    given: Mapping[str, Any]

    @property
    def live(self) -> Facets:
        """The catalog."""
        return self.subject.live

    @property
    def keeper(self) -> Keeper:
        """Where before-images are kept."""
        return self.subject.keeper

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """What else the journal keeps: the operations of the revision that wants the key."""
        return self.subject.facts.tables() if self.subject.facts else {}

    @property
    def indexed(self) -> bool:
        """Whether an index finds rows by the key."""
        return bool(self.indexes["serves"].any())

    @property
    def standing(self) -> str | None:
        """The key's definition in the catalog now; None: it is not there."""
        return self.live.get(("constraint", self.key.identity))

    def rows_of(self, table: str) -> int:
        """How many rows of a table a repair would change or take."""
        along = [one.rows.best for one in self.referring if one.key.table == table]
        return sum(along) if table != self.key.table else max(self.count.best, sum(self.levels))

    @property
    def valid(self) -> bool:
        """Whether the key stands as it is wanted."""
        return self.standing == self.key.definition

    @property
    def content(self) -> Facets:
        """The catalog as the repair finds it: the key stands, NOT VALID."""
        there = {("constraint", self.key.identity): self.standing or f"{self.key.definition}{NOT_VALID}"}
        return {**self.live, **there}

"""A sequence behind the values of its column: the next insert meets a key that is taken.  Looks alike to duplicates, and is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mend.change.act import literal
from mend.database import queries
from mend.plan import Lock, Statement, Step
from mend.values import counting

if TYPE_CHECKING:
    import pandas
    from sqlalchemy import Connection


@dataclass(frozen=True)
class Fed:
    """A column that a sequence fills: the next value it would get, and the furthest that is there (None: no rows)."""

    relation: str
    column: str
    sequence: str
    next_value: int
    step: int
    furthest: int | None

    @property
    def behind(self) -> bool:
        """Whether the next value is taken, or one after it will be."""
        return self.furthest is not None and (self.next_value - self.furthest) * (1 if self.step > 0 else -1) <= 0


@dataclass(frozen=True)
class Answer:
    """The sequences looked at, and what could not be looked at."""

    fed: tuple[Fed, ...]
    frame: pandas.DataFrame
    why: str = ""

    @property
    def behind(self) -> tuple[Fed, ...]:
        """Those whose next value is taken."""
        return tuple(one for one in self.fed if one.behind)


def look(conn: Connection, relation: str = "") -> Answer:
    """The sequences of one table, or of every table, with how far its rows are.

    Reads: the catalogs, the sequences, and the highest value of each column.  Writes: nothing.
    """
    frame = queries.frame(conn, "unique_violation/sequences", relation=relation)
    if not relation:
        frame = frame[frame["is_indexed"].astype(bool)]
    fed, why = [], []
    for row in frame.to_dict("records"):
        name = f"{row['relation']}.{row['column_name']}"
        if not row["is_known"]:
            why.append(f"the role may not read sequence {row['sequence']}")
            continue
        word = "max" if row["step"] > 0 else "min"
        answer = counting.ask(conn, f"select {word}({row['column_name']}) from {row['relation']}")
        if answer.why:
            why.append(f"the {word}imum of {name} {answer.why}")
            continue
        (found,) = answer.rows[0]
        fed.append(
            Fed(
                str(row["relation"]),
                str(row["column_name"]),
                str(row["sequence"]),
                int(row["next_value"]),
                int(row["step"]),
                None if found is None else int(found),
            )
        )
    shown = frame[["relation", "column_name", "sequence", "next_value"]].copy()
    known = {f"{one.relation} {one.column}": one.furthest for one in fed}
    named = (f"{row.relation} {row.column_name}" for row in frame.itertuples())
    shown["furthest"] = [known.get(name) for name in named]
    return Answer(tuple(fed), shown, "; ".join(why))


def step(behind: Sequence[Fed]) -> tuple[Step, ...]:
    """Move each sequence past the rows that are there; never back.  There is nothing to undo: a gap harms nobody."""
    return tuple(_step(one) for one in behind)


def _step(one: Fed) -> Step:
    word, further = ("max", ">=") if one.step > 0 else ("min", "<=")
    ahead = f"s.last_value + case when s.is_called then {one.step} else 0 end"
    move = (
        f"select setval(cast({literal(one.sequence)} as regclass), r.furthest) "
        f"from (select {word}({one.column}) as furthest from {one.relation}) as r, {one.sequence} as s where r.furthest {further} {ahead}"
    )
    return Step(
        says=f"Move {one.sequence} to the {word}imum of {one.relation}.{one.column}, if it is still behind. Nothing to undo: numbers are only left out",
        statements=(Statement(f"lock table {one.relation} in share row exclusive mode"), Statement(move, at_most=1)),
        locks=(Lock(one.relation, "SHARE ROW EXCLUSIVE", "inserts wait for a moment, so that none is overlooked"),),
    )

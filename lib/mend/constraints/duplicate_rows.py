"""What a database says of rows that share a key which is to be unique.  Reads only; the questions' texts are in `duplicates`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from mend.constraints import deduplicate, duplicates
from mend.constraints.deduplicate import Scene
from mend.constraints.duplicates import Column, Ranking, Reference
from mend.constraints.proposals import Objection
from mend.database import queries
from mend.database.catalog import Change
from mend.diagnosis import Site
from mend.errors import InvalidParameter
from mend.repairs.subject import Subject
from mend.repairs.violations import Uniqueness, uniqueness
from mend.values import counting, masking

if TYPE_CHECKING:
    from sqlalchemy import Connection

PATIENCE_MS = 15_000
_PLAIN = re.compile(r"\d+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NO_INDEX = ("indexscan", "indexonlyscan", "bitmapscan")


@dataclass(frozen=True)
class Asked:
    """The answer to one composed question; ``why`` says why there is none."""

    frame: pd.DataFrame
    sql: str
    why: str = ""


@dataclass(frozen=True)
class Found:
    """Everything that was seen.  ``standing``: the table's unique indexes; ``children``: what points at the rows, by foreign key."""

    scene: Scene
    sizes: Asked
    sample: Asked
    folded: Asked
    children: Asked
    standing: pd.DataFrame
    privileges: pd.DataFrame

    @property
    def groups(self) -> int:
        """How many values more than one row has; 0 where that is not known (``sizes.why``)."""
        return int(self.sizes.frame["groups"].sum()) if len(self.sizes.frame) else 0

    @property
    def rows(self) -> int:
        """How many rows those are."""
        return int((self.sizes.frame["size"] * self.sizes.frame["groups"]).sum()) if len(self.sizes.frame) else 0


def demanded(wanted: Subject) -> Uniqueness:
    """What the wanted constraint or index demands.  Raises: InvalidParameter where it is no unique key."""
    found = uniqueness(Change(wanted.change.kind, wanted.identity, None, wanted.definition), wanted.live)
    if found is None:
        raise InvalidParameter(
            f"{wanted.identity} ({wanted.definition}) is no unique key that is known here. Nothing was changed. Name a unique constraint or index."
        )
    return found


def look(site: Site, wanted: Subject, *, order_by: str, suffix: str, mask: bool) -> Found:
    """Ask about the rows that share the wanted key, one short transaction for all questions.

    Raises: InvalidParameter for an order or suffix that is none; PrivilegeMissing, QueryFailed.
    """
    key = demanded(wanted)
    with site.target.reading(site.run_id) as conn:
        columns = _columns(conn, key.table)
        own = deduplicate.row_key(key.table, wanted.live, wanted.keeper, but=wanted.identity)
        ranking = Ranking(key, own, duplicates.order_of(order_by, columns) or _oldest(columns))
        standing = queries.frame(conn, "unique_violation/standing", relation=key.table)
        if standing["is_valid"].any():  # an index that rows contradict must not answer for them
            for one in _NO_INDEX:
                conn.exec_driver_sql(f"set local enable_{one} = off")
        sizes = _asked(conn, duplicates.sizes(ranking))
        references = _references(conn, key.table)
        children = [_asked(conn, duplicates.pointing(ranking, one)) for one in references]
        sample, folded = _asked(conn, duplicates.sample(ranking)), _asked(conn, duplicates.folded(ranking, columns))
        relations = sorted({key.table, *(one.child for one in references)})
        privileges = queries.frame(conn, "subject/privileges", relations=relations)
    others = int(((sizes.frame["size"] - 1) * sizes.frame["groups"]).sum()) if len(sizes.frame) else 0
    pointing = {
        one.identity: int(answer.frame["at_others"].iloc[0])
        for one, answer in zip(references, children, strict=True)
        if not answer.why
    }
    scene = Scene(ranking, columns, wanted.definition, references, others, pointing, suffix)
    return Found(
        scene,
        sizes,
        _masked(sample, mask, key=own),
        _masked(folded, mask),
        _of_children(references, children),
        standing,
        privileges,
    )


def circles(conn: Connection, scene: Scene) -> list[Objection]:
    """Rows that would come to point at themselves, as objections to a merge."""
    found = []
    for one in scene.references:
        asked = _asked(conn, duplicates.circles(scene.ranking, one))
        if asked.why or len(asked.frame):
            says = f"whether rows would point at themselves by {one.identity} could not be checked: it {asked.why}"
            if not asked.why:
                says = f"{len(asked.frame)} rows that stay point at a row of their own group, so they would point at themselves by {one.identity}"
            found.append(Objection(says, len(asked.frame), masking.masked(asked.frame, keys=["row_key", "held"])))
    return found


def _asked(conn: Connection, sql: str) -> Asked:
    """A composed question; '' is none, and answered with nothing."""
    if not sql:
        return Asked(pd.DataFrame(), "")
    answer = counting.ask(conn, sql, timeout_ms=PATIENCE_MS)
    return Asked(pd.DataFrame(list(answer.rows), columns=list(answer.columns)), sql, answer.why)


def _masked(asked: Asked, mask: bool, *, key: tuple[str, ...] = ("",)) -> Asked:
    """Values hidden; the rows' own keys are shown where they say nothing by themselves, as their places (without a ``key``) do."""
    frame = asked.frame.copy()
    if "examples" in frame:
        frame["examples"] = [
            ", ".join(str(masking.mask(one)) if mask else str(one) for one in values) for values in frame["examples"]
        ]
    if "rows" in frame:
        frame["rows"] = [
            ", ".join(one if not key or not mask else _of_row(one) for one in values) for values in frame["rows"]
        ]
    hidden = [name for name in frame.columns if str(name).startswith("key_")]
    return Asked(masking.masked(frame, columns=hidden, mask=mask), asked.sql, asked.why)


def _of_row(text: str) -> str:
    """A row's own key: numbers and UUIDs tell nobody anything."""
    return text if _PLAIN.fullmatch(text) else str(masking.mask(text))


def _columns(conn: Connection, table: str) -> dict[str, Column]:
    rows = queries.frame(conn, "unique_violation/columns", relation=table).to_dict("records")
    return {
        str(row["name"]): Column(
            str(row["name"]),
            str(row["type"]),
            bool(row["is_text"]),
            bool(row["folds"]),
            int(row["length"]),
            bool(row["nullable"]),
            bool(row["computed"]),
        )
        for row in rows
    }


def _oldest(columns: dict[str, Column]) -> tuple[tuple[str, bool], ...]:
    """Where nothing is said: by ``created_at``, if there is such a column of a time."""
    made = columns.get("created_at")
    return ((made.name, False),) if made and made.type.startswith(("timestamp", "date")) else ()


def _references(conn: Connection, table: str) -> tuple[Reference, ...]:
    rows = queries.frame(conn, "unique_violation/references", relation=table).to_dict("records")
    return tuple(
        Reference(
            str(row["identity"]),
            str(row["child"]),
            tuple(row["columns"]),
            tuple(row["referenced"]),
            str(row["on_delete"]),
            bool(row["computed"]),
        )
        for row in rows
    )


def _of_children(references: Iterable[Reference], answers: Iterable[Asked]) -> Asked:
    """One line for each foreign key."""
    listed = []
    pairs = list(zip(references, answers, strict=True))
    for one, answer in pairs:
        counted = {name: None if answer.why else int(answer.frame[name].iloc[0]) for name in ("at_others", "at_kept")}
        listed.append({"child": one.child, "columns": ", ".join(one.columns), "on_delete": one.on_delete, **counted})
    columns = ["child", "columns", "on_delete", "at_others", "at_kept"]
    why = "; ".join(f"{one.child}: the question {answer.why}" for one, answer in pairs if answer.why)
    return Asked(pd.DataFrame(listed, columns=columns), ";\n".join(answer.sql for _, answer in pairs), why)

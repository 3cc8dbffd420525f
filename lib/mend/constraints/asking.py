"""One proposal and the database: how its questions are asked, and how what they answer is shown.  `proposals` knows the questions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from mend.constraints import proposed
from mend.constraints.proposed import AT, Change, Column
from mend.database import names, queries
from mend.errors import InvalidParameter, from_driver, sqlstate
from mend.values import counting, expressions, masking, offenders

if TYPE_CHECKING:
    import pandas
    from sqlalchemy import Connection

SAMPLE = 20  # rows shown of each objection


@dataclass(frozen=True)
class Proposal:
    """What a repair would write; the same words as `rows.Repair`.

    ``values``: quoted column -> SQL expression over ``t`` (and ``w``). ``where``: over ``t`` (and ``w``). ``work``: a SELECT that lists
    k1..kn and v1..vm; ``match``: the columns of ``t`` that equal k1..kn. ``insert``: one row for each row of ``work``; expressions are over ``w``.
    ``not_null``: columns where NULL is refused though the catalog does not ask for it yet. ``wanted``: definitions of unique constraints
    and indexes that are to hold afterwards, as pg_get_constraintdef and pg_get_indexdef print them; others are passed over.
    """

    table: str
    values: Mapping[str, str]
    where: str = "true"
    work: str = ""
    match: tuple[str, ...] = ()
    action: Literal["update", "insert"] = "update"
    not_null: Collection[str] = ()
    wanted: Sequence[str] = ()


@dataclass(frozen=True)
class Objection:
    """One reason not to write: in words, how many rows (None: unknown), and a sample of them, masked unless asked otherwise."""

    says: str
    rows: int | None
    frame: pandas.DataFrame = field(repr=False)


class Asker:
    """What every question about a proposal needs: the table as the catalog has it, the rows as they would be, answers and samples."""

    def __init__(self, conn: Connection, proposal: Proposal, timeout_ms: int, mask: bool) -> None:
        self.conn, self.proposal, self.timeout_ms, self.mask = conn, proposal, timeout_ms, mask
        frame = expressions.columns_of(conn, proposal.table)
        self.columns = tuple(_column(row) for row in frame.to_dict("records"))
        self.by_name = {column.name: column for column in self.columns}
        unknown = [name for name in (*proposal.values, *proposal.not_null) if name not in self.by_name]
        if unknown or not proposal.values:
            raise InvalidParameter(
                f"{proposal.table} has no column {', '.join(unknown) or '(none was named)'}. Nothing was changed. "
                f"It has: {', '.join(self.by_name)}."
            )
        p = proposal
        self.change = Change(p.table, dict(p.values), p.where, p.work, p.match, p.action)
        self.relations = queries.frame(conn, "values/relations", table_name=p.table)
        if self.relations["kind"].iloc[0] not in ("r", "p"):
            raise InvalidParameter(
                f"{p.table} is not a table whose rows can be repaired. Nothing was changed. Name the table itself."
            )
        self.row_keys: tuple[str, ...] = tuple(self.relations["keys"].iloc[0])

    @cached_property
    def fresh(self) -> str:
        return proposed.fresh(self.change, self.columns, self.row_keys)

    @property
    def _about(self) -> dict[str, Any]:
        """Binds of the questions: the columns that are written, and those that are computed from others."""
        generated = [column.name for column in self.columns if column.generation]
        return {"table_name": self.proposal.table, "column_names": [*self.change.values, *generated]}

    @property
    def _new(self) -> list[str]:
        return [proposed.new(n) for n in range(len(self.change.values))]

    @property
    def _root(self) -> int:
        return int(self.relations["relation_oid"].iloc[0])

    @property
    def _has_one_home(self) -> bool:
        """Whether a key of the table is about all its rows; those of tables that inherit from it are none of its business."""
        return self._is_partitioned or len(self.relations) == 1

    @property
    def _is_partitioned(self) -> bool:
        return bool(self.relations["kind"].iloc[0] == "p")

    def _is_root(self, row: Mapping[Any, Any]) -> bool:
        return int(row["relation_oid"]) == self._root

    def _failing(self, sql: str, doing: str) -> Iterator[Objection]:
        failure = self._failure(sql)
        if failure is not None:
            yield self._objection(failure.says(doing), None)

    def _failure(self, sql: str) -> offenders.Failure | None:
        return offenders.failure(self.conn, sql, timeout_ms=self.timeout_ms, mask=self.mask)

    def _answer(self, sql: str, what: str) -> counting.Answer | Objection:
        """The answer, or that there is none."""
        from sqlalchemy.exc import DBAPIError

        try:
            answer = counting.ask(self.conn, sql, timeout_ms=self.timeout_ms)
        except DBAPIError as error:
            why = offenders.words(error, mask=self.mask)
            if sqlstate(error) == "42501":
                raise from_driver(error, f"{what} could not be checked", "Nothing was changed.") from error
            return self._objection(f"Could not check {what}: {why}", None)
        return self._objection(f"Could not check {what}: the question {answer.why}", None) if answer.why else answer

    def _sample(self, condition: str, shown: Sequence[str]) -> pandas.DataFrame:
        """At most SAMPLE of the rows that meet a condition: what tells them apart, and the new values."""
        import pandas

        keys = {proposed.k(n): names.unquoted(key) for n, key in enumerate(self.row_keys)} or {AT: "ctid"}
        values = {proposed.new(n): f"new {names.unquoted(name)}" for n, name in enumerate(self.change.values)}
        titles = {**keys, **{name: values[name] for name in shown}}
        order = ", ".join(keys)
        answer = counting.ask(
            self.conn,
            f"select {', '.join(titles)} from ({self.fresh}) as fresh where {condition} order by {order} limit {SAMPLE}",
            timeout_ms=self.timeout_ms,
        )
        frame = pandas.DataFrame(list(answer.rows), columns=list(titles.values()), dtype="object")
        return self._masked(frame, [*keys.values()])

    def _masked(self, frame: pandas.DataFrame, keys: Sequence[str]) -> pandas.DataFrame:
        """Without what is personal; a row's address (where it has no key) and the server's words, masked already, stay."""
        columns = [name for name in frame.columns if name != "why" and (name != "ctid" or self.row_keys)]
        return masking.masked(frame, columns=columns, keys=keys, mask=self.mask)

    def _objection(self, says: str, rows: int | None, frame: pandas.DataFrame | None = None) -> Objection:
        import pandas

        return Objection(f"{says}.", rows, pandas.DataFrame() if frame is None else frame)


def _column(row: Mapping[Any, Any]) -> Column:
    fields = ("name", "base_type", "raw_type", "base", "element", "typmod", "not_null", "generation", "has_default")
    return Column(**{str(name): row[name] for name in fields})

"""May a long UPDATE be done in batches instead, beside the application and outside of the migration?  And the repair that does it.

Whoever takes it over must be able to tell, at any moment, the rows that are done from those that are not: a batch that is sent again
must find nothing.  So each value must be a pure expression of its row, and a row that was changed must not be found again, by the
statement's own condition or because its columns hold their new values already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mend.batches.repair import Repair, is_generated
from mend.change import kept
from mend.constraints import proposals
from mend.constraints.proposals import Proposal
from mend.database import names, queries
from mend.errors import MendError, QueryFailed, sqlstate
from mend.repairs.steps import Facets
from mend.slow.dml import Change
from mend.values import counting, expressions, grammar

_TIMEOUT_MS = 1000
_TRIED = 1000  # rows on which it is tried whether a changed row is found again
_OF_THE_SESSION = frozenset(
    ["current_user", "current_role", "session_user", "user", "current_schema", "current_schemas", "current_catalog"]
)
_MOVES = frozenset(["now", "current_timestamp", "current_date", "current_time", "localtime", "localtimestamp", "transaction_timestamp",
                    "statement_timestamp", "clock_timestamp"])  # fmt: skip


@dataclass(frozen=True)
class Takeover:
    """``values`` (quoted column -> expression over ``t``) and ``where`` of the repair; or ``why_not``.  ``notes``: what to know.

    ``closes``: the statement's own condition is false of a row that is done, so that the statement itself finds nothing afterwards.
    ``own``: new values come from old ones of the same columns.  ``told``: the columns (quoted) by whose values a row that is done is told from one that is not.
    """

    table: str
    values: Mapping[str, str]
    where: str
    why_not: str = ""
    notes: tuple[str, ...] = ()
    closes: bool = False
    told: tuple[str, ...] = ()
    own: bool = False

    @property
    def sql(self) -> str:
        """What is asked for in one statement, for reading; it is run in batches."""
        sets = ", ".join(f"{column} = {text}" for column, text in self.values.items())
        return f"update {self.table} as t set {sets} where {self.where}" if self.values else ""

    def repair(self, job: str, *, at_most: int | None, workers: int, batch_ms: int, until_none: bool = True) -> Repair:
        """The repair that a step is made of."""
        return Repair(
            job=job, table=self.table, action="update", values=self.values, where=self.where, at_most=at_most, workers=workers,
            batch_ms=batch_ms, until_none=until_none, each=self.own,
        )  # fmt: skip


def examine(conn: Connection, change: Change | None, table: str, live: Facets) -> Takeover:
    """Whether the change of a table (qualified, quoted) can be taken over.

    Reads: the catalog, some rows of the table.  Locks: ACCESS SHARE on it; ROW EXCLUSIVE for a moment, while the server parses.
    """
    why_not = _unfit(change)
    if why_not or change is None:
        return Takeover(table, {}, "", why_not)
    try:
        return _examined(conn, change, table, live)
    except MendError as error:
        return Takeover(table, {}, "", error.message.partition(" Nothing was changed.")[0].rstrip("."))


def _unfit(change: Change | None) -> str:
    """What its text alone says against it."""
    if change is None:
        return "it is no UPDATE that can be read"
    if change.kind != "update":
        return (
            f"it is an {change.kind.upper()}, and only an UPDATE is taken over"
            if change.kind == "insert"
            else "it deletes rows: only an UPDATE is taken over"
        )
    if change.why_not:
        return change.why_not
    if change.given:
        return "values of it are parameters, which are known to its own session alone"
    return ""


def _examined(conn: Connection, change: Change, table: str, live: Facets) -> Takeover:
    printed = {names.unquoted(column): column for column in kept.columns_of(table, live)}
    if change.batch_key and change.batch_key != "ctid" and not _is_key(change.batch_key, table, live):
        return Takeover(
            table,
            {},
            "",
            f"its loop picks rows by {change.batch_key}, which is no primary key of {table}: rows beside those that were picked may change too",
        )
    if queries.frame(conn, "values/relations", table_name=table)["inherits"].any():
        return Takeover(table, {}, "", f"other tables inherit from {table}, and a repair would not reach their rows")
    values, told, notes = {}, {}, []
    read: set[str] = set()
    for name, text in change.values.items():
        column = printed.get(grammar.tokens_of(name)[0].value)
        if column is None:
            return Takeover(
                table,
                {},
                "",
                f"{table} has no column {name} before the migration commits: split the revision (see Prevent)",
            )
        found = expressions.checked(conn, text, table=table, column=column)
        values[column] = text
        words = grammar.read(text, list(kept.columns_of(table, live))).words()
        if session := sorted(words & _OF_THE_SESSION):
            return Takeover(
                table, {}, "", f"{session[0]} means the migration's own session, and another one in a repair"
            )
        read |= words
        moves = found.volatile or bool(words & _MOVES)
        if moves:
            notes.append(f"{column} = {text} has another value in each batch")
        else:
            told[column] = f"t.{column} is distinct from ({text})"
    if change.where:
        found = expressions.checked(conn, change.where, table=table)
        words = grammar.read(change.where, list(kept.columns_of(table, live))).words()
        if session := sorted(words & _OF_THE_SESSION):
            return Takeover(
                table, {}, "", f"{session[0]} means the migration's own session, and another one in a repair"
            )
        if found.type != "boolean" or found.volatile:
            return Takeover(table, {}, "", f"its condition {'is volatile' if found.volatile else 'is no condition'}")
    own = not read.isdisjoint(names.unquoted(column) for column in values)
    where = _condition(change.where, list(told.values()))
    again, tried = _found_again(conn, table, values, where, where, live)
    why_not = (
        f"a row that it has changed cannot be told from one that it has not (of {tried} that were tried {again} would be changed again)"
        if again
        else ""
    )
    closes = False
    if change.where and not why_not:
        again, tried = _found_again(conn, table, values, where, change.where, live)
        closes = tried > 0 and again == 0
    if not told and not change.where:
        why_not = "every value of it is another each time, and it has no condition: nothing tells a row that is done"
    if not why_not:
        said = proposals.objections(conn, Proposal(table, values, where=where), timeout_ms=_TIMEOUT_MS)
        late = [one.says for one in said if one.says.startswith("Could not check")]
        notes += [one.rstrip(".") for one in late]
        why_not = "; ".join(one.says.rstrip(".") for one in said if one.says not in late)
    return Takeover(table, values, where, why_not, tuple(notes), closes, tuple(told), own)


def _condition(where: str, told: list[str]) -> str:
    """``where`` of the statement, and that a column holds another value than it will get."""
    differs = " or ".join(told)
    parts = [f"({where})"] if where else []
    parts += [f"({differs})"] if differs else []
    return " and ".join(parts) or "true"


def _is_key(column: str, table: str, live: Facets) -> bool:
    key = kept.primary_keys(live).get(table, ())
    return [names.unquoted(one) for one in key] == [names.unquoted(column)]


def _found_again(
    conn: Connection, table: str, values: Mapping[str, str], where: str, again: str, live: Facets
) -> tuple[int, int]:
    """Of the first rows, changed in thought: how many a condition would find again, and how many there were.

    The repair looks again after its first batch, in another transaction.  Raises: QueryFailed.
    """
    columns = kept.columns_of(table, live)
    changed = ", ".join(
        f"cast(({values[column]}) as {kept.type_of(definition)}) as {column}" if column in values else f"t.{column}"
        for column, definition in columns.items()
        if not is_generated(definition)
    )
    sql = f"select count(*) filter (where {again}), count(*) from (select {changed} from {table} as t where {where} limit {_TRIED}) as t"
    try:
        answer = counting.ask(conn, sql, timeout_ms=_TIMEOUT_MS)
    except DBAPIError as error:
        raise QueryFailed(f"a value of it cannot be computed for some rows (SQLSTATE {sqlstate(error)})") from error
    if answer.why and "end within" not in answer.why:
        raise QueryFailed(f"it could not be tried: the question {answer.why}")
    return (int(answer.rows[0][0]), int(answer.rows[0][1])) if answer.rows else (0, 0)

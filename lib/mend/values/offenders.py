"""For which rows does a question fail?  Found by halving the table's blocks, because an error of the server names no row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mend import errors
from mend.errors import PrivilegeMissing, from_driver
from mend.values import counting, masking

if TYPE_CHECKING:
    import pandas
    from sqlalchemy import Connection

MOST = 5  # rows that are named
PROBES = 300
_LONGEST = 300  # characters of a message; the server repeats a value that it cannot read, however long it is
_BUDGET = 4  # times the timeout of one question
#: SQLSTATE classes of errors that one row's values make: data exceptions, constraints, external routines, RAISE.
_OF_A_ROW = ("22", "23", "2F", "38", "39", "P0", "21")


@dataclass(frozen=True)
class Failure:
    """Why a question had no answer: the server's words, or that it took too long. ``about_a_row``: another row might pass."""

    why: str
    about_a_row: bool
    late: bool = False

    def says(self, doing: str) -> str:
        return f"{doing}: {'the question ' if self.late else ''}{self.why}"


@dataclass(frozen=True)
class Offender:
    """One row for which the question fails, by its address."""

    relation_oid: int
    ctid: str
    why: str


@dataclass(frozen=True)
class Found:
    """Rows that fail, and in words how many of them there may be."""

    rows: tuple[Offender, ...]
    says: str


def failure(conn: Connection, sql: str, *, timeout_ms: int, mask: bool) -> Failure | None:
    """Ask, and say why it failed; None where it did not.  Raises: PrivilegeMissing."""
    from sqlalchemy.exc import DBAPIError

    try:
        answer = counting.ask(conn, sql, timeout_ms=timeout_ms)
    except DBAPIError as error:
        ours = from_driver(error, "The question", "Nothing was changed.")
        if isinstance(ours, PrivilegeMissing):
            raise ours from error
        return Failure(words(error, mask=mask), errors.sqlstate(error)[:2] in _OF_A_ROW)
    return Failure(answer.why, False, late=True) if answer.why else None


def words(error: BaseException, *, mask: bool) -> str:
    """The server's message and detail, without the values in them, and its SQLSTATE."""
    origin = getattr(error, "orig", None) or error
    said, state = getattr(origin, "diag", None), errors.sqlstate(error)
    texts = [getattr(said, "message_primary", None) or str(origin).strip(), getattr(said, "message_detail", None)]
    shown = [masking.masked_detail(text, sqlstate=state) if mask else text for text in texts if text]
    short = [text[:_LONGEST].rstrip(".") for text in dict.fromkeys(shown)]
    return "; ".join(short) + f" (SQLSTATE {state})"


def find(
    conn: Connection,
    question: Callable[[str], str],
    addresses: Callable[[str], str],
    relations: pandas.DataFrame,
    *,
    timeout_ms: int,
    mask: bool,
) -> Found:
    """At most MOST rows for which ``question(condition)`` fails, within PROBES questions and some seconds.

    Parameters
    ----------
    question : gives the SQL for the rows ``t`` that meet a condition on their address
    addresses : gives the SQL that lists the ``ctid`` of such rows
    relations : as ``values/relations.sql`` answers
    """
    search = _Search(conn, question, addresses, timeout_ms, mask)
    rows: list[Offender] = []
    for row in search.relations(relations):
        rows.append(row)
        if len(rows) == MOST:
            break
    if not rows:
        return Found((), "some rows, which could not be singled out")
    whole = len(rows) < MOST and not search.gave_up
    number = f"{len(rows)} row" + ("s" if len(rows) > 1 else "")
    return Found(tuple(rows), number if whole else f"at least {number}")


class _Search:
    """Halving, with a bound on questions and seconds."""

    def __init__(
        self,
        conn: Connection,
        question: Callable[[str], str],
        addresses: Callable[[str], str],
        timeout_ms: int,
        mask: bool,
    ) -> None:
        self.conn, self.question, self.addresses, self.timeout_ms, self.mask = (
            conn,
            question,
            addresses,
            timeout_ms,
            mask,
        )
        self.left, self.until = PROBES, time.monotonic() + _BUDGET * timeout_ms / 1000
        self.gave_up = False

    def relations(self, relations: pandas.DataFrame) -> Iterator[Offender]:
        for relation in relations.to_dict("records"):
            if int(relation["pages"]):
                yield from self._blocks(int(relation["relation_oid"]), 0, int(relation["pages"]))

    def _blocks(self, oid: int, first: int, end: int) -> Iterator[Offender]:
        condition = f"t.tableoid = {oid} and t.ctid >= '({first},0)' and t.ctid < '({end},0)'"
        failed = self._probe(condition)
        if failed is None:
            return
        if end - first == 1:
            yield from self._tuples(oid, self._listed(condition))
            return
        middle = (first + end) // 2
        yield from self._blocks(oid, first, middle)
        yield from self._blocks(oid, middle, end)

    def _listed(self, condition: str) -> list[str]:
        """The addresses in a block; none where the condition of the repair itself fails."""
        from sqlalchemy.exc import DBAPIError

        try:
            return [
                str(row[0])
                for row in counting.ask(self.conn, self.addresses(condition), timeout_ms=self.timeout_ms).rows
            ]
        except DBAPIError:
            self.gave_up = True
            return []

    def _tuples(self, oid: int, ctids: list[str]) -> Iterator[Offender]:
        listed = ", ".join(f"'{ctid}'" for ctid in ctids)
        failed = self._probe(f"t.tableoid = {oid} and t.ctid in ({listed})") if ctids else None
        if failed is None:
            return
        if len(ctids) == 1:
            yield Offender(oid, ctids[0], failed.why)
            return
        middle = len(ctids) // 2
        yield from self._tuples(oid, ctids[:middle])
        yield from self._tuples(oid, ctids[middle:])

    def _probe(self, condition: str) -> Failure | None:
        """Why the question fails for these rows; None if it does not, or if there is no time left to ask."""
        self.left -= 1
        if self.left < 0 or time.monotonic() > self.until:
            self.gave_up = True
            return None
        failed = failure(self.conn, self.question(condition), timeout_ms=self.timeout_ms, mask=self.mask)
        if failed is not None and not failed.about_a_row:
            self.gave_up = True
            return None
        return failed

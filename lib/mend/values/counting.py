"""How many rows? An estimate first, then the exact number if it comes in time. Reads only.

The questions are composed (a table is no bind), from names that the catalog has quoted already and from conditions that were
checked before. Each runs in a savepoint, so that a timeout costs the answer and not the diagnosis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mend import errors

if TYPE_CHECKING:
    from sqlalchemy import Connection

TIMEOUT_MS = 5000
_STATE = "Nothing was changed."


@dataclass(frozen=True)
class Count:
    """``rows``: the exact number, None where it is not known. ``estimate``: the planner's. ``why``: why it is not exact."""

    rows: int | None
    estimate: int
    exact: bool
    why: str = ""

    @property
    def best(self) -> int:
        """The exact number where there is one, else the estimate."""
        return self.estimate if self.rows is None else self.rows

    @property
    def says(self) -> str:
        """The number in words.

        >>> Count(1204, 900, True).says, Count(None, 90000, False, "the count did not end within 5 s").says
        ('1,204', 'about 90,000 (the count did not end within 5 s)')
        """
        return (
            f"{self.rows:,}"
            if self.rows is not None
            else f"about {self.estimate:,}" + f" ({self.why})" * bool(self.why)
        )


@dataclass(frozen=True)
class Answer:
    """What a composed question answered. ``why`` is '' or says that it did not come in time; then there are no rows."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    why: str = ""


def ask(conn: Connection, sql: str, *, timeout_ms: int = TIMEOUT_MS) -> Answer:
    """Ask a composed question in a savepoint, under a timeout of its own; percent signs and colons mean nothing special.

    Never raises for a timeout (57014) or a lock that was not granted (55P03): ``.why`` says so.  Other errors of the driver pass
    through; the transaction goes on behind them, and its own timeouts are as before.
    """
    from sqlalchemy.exc import DBAPIError

    try:
        with _for_now(conn, timeout_ms):
            result = conn.exec_driver_sql(sql.replace("%", "%%"))
            return Answer(tuple(result.keys()), [tuple(row) for row in result])
    except DBAPIError as error:
        why = _LATE.get(errors.sqlstate(error), "")
        if not why:
            raise
        return Answer((), (), why.format(seconds=f"{timeout_ms / 1000:g}"))


def of_table(
    conn: Connection, table: str, where: str = "true", *, timeout_ms: int = TIMEOUT_MS, at_most: int = 0
) -> Count:
    """Count the rows of a table, ``t``, where a condition holds; partitions and children too.

    Parameters
    ----------
    table : qualified and quoted, perhaps with ``only`` before it
    where : SQL over ``t``
    at_most : stop counting there (0: never); more rows give ``rows=None`` and a ``why``

    Raises: PrivilegeMissing, QueryFailed; never for a timeout.
    """
    return of_query(conn, f"select from {table} as t where ({where})", timeout_ms=timeout_ms, at_most=at_most)


def of_query(conn: Connection, select: str, *, timeout_ms: int = TIMEOUT_MS, at_most: int = 0) -> Count:
    """Count the rows that a SELECT gives, without fetching them; otherwise as ``of_table``."""
    from sqlalchemy.exc import DBAPIError

    bounded = f"select from ({select}) as listed limit {int(at_most) + 1}" if at_most else select
    try:
        estimate = _estimate(conn, select, timeout_ms)
        counted = ask(conn, f"select count(*) from ({bounded}) as counted", timeout_ms=timeout_ms)
    except DBAPIError as error:
        raise errors.from_driver(error, "The rows could not be counted", _STATE) from error
    if counted.why:
        return Count(None, estimate, False, f"the count {counted.why}")
    rows = int(counted.rows[0][0])
    if at_most and rows > at_most:
        return Count(None, max(estimate, rows), False, f"more than {at_most:,}; the count stopped there")
    return Count(rows, estimate, True)


def _estimate(conn: Connection, select: str, timeout_ms: int) -> int:
    """The planner's: reltuples and pg_stats (null_frac for IS NULL), partition by partition. 0 where planning itself was too slow."""
    planned = ask(conn, f"explain (format json) {select}", timeout_ms=timeout_ms)
    return 0 if planned.why else int(planned.rows[0][0][0]["Plan"]["Plan Rows"])


_LATE = {"57014": "did not end within {seconds} s", "55P03": "waited for a lock that another session holds"}


@contextmanager
def _for_now(conn: Connection, timeout_ms: int) -> Iterator[None]:
    """A savepoint with its own timeout. Always rolled back: that gives back the locks and the settings of what ran in it."""
    savepoint = conn.begin_nested()
    try:
        conn.exec_driver_sql(f"set local statement_timeout = {max(int(timeout_ms), 1)}")
        yield
    finally:
        savepoint.rollback()

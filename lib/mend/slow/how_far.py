"""How far a change of rows is that runs in somebody else's transaction.  Reads only, in any order of its work, by ACCESS SHARE alone.

What it changed is not visible before it commits, and pg_stat_user_tables counts it only then.  But the old version of a row stays
visible to us, and holds in ``xmax`` the transaction that replaces it.  So pages are picked evenly over the table, and of the rows on
them that are visible those are done whose ``xmax`` is that transaction or one of its subtransactions.

A row that the transaction only locks counts as done too, and where somebody else locks a row that it has changed, ``xmax`` is a
multixact and the row counts as still to do: both are few where a migration changes most of a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mend.database import queries
from mend.errors import QueryFailed, from_driver, sqlstate
from mend.values import counting

if TYPE_CHECKING:
    from sqlalchemy import Connection

PAGES = 400  # of a table: read evenly, so that a walk in physical order is known to 1 in 400
_FEWER = 60  # where so many do not come in time
LIMITS = "set local lock_timeout = 200; set local statement_timeout = 1000"
_TIMEOUT_MS = 1000


@dataclass(frozen=True)
class Worker:
    """Whose work it is: the pid, and its transaction id ('' where it has none, because it has changed nothing yet)."""

    pid: int
    xid: str


@dataclass(frozen=True)
class Share:
    """What a look found on the pages it read: visible rows done, still to do, and neither; ``pages`` read of ``of``.

    ``groups``: (done, to do) page by page as far as they differ, for the error.  ``why``: why there is no answer.
    """

    done: int
    left: int
    other: int
    pages: int
    of: int
    spread: float = 0.0
    why: str = ""

    @property
    def scale(self) -> float:
        """Rows of the table for a row that was looked at."""
        return self.of / self.pages if self.pages else 0.0

    @property
    def rows_done(self) -> float:
        """About how many rows are done."""
        return self.done * self.scale

    @property
    def rows_left(self) -> float:
        """About how many are still to do."""
        return self.left * self.scale

    @property
    def error(self) -> float:
        """Standard error of ``rows_done``, rows; 0 where every page was read."""
        return self.spread * self.of if self.pages < self.of else 0.0


def look(conn: Connection, table: str, worker: Worker, *, where: str = "", pages: int = PAGES) -> Share:
    """Look once at a table (qualified, quoted), its partitions too.

    ``where``: which rows the work is about, over ``t``; '' for all.  ``why`` says where a lock or the time stood in the way: nobody is
    waited for longer than 200 ms, and no question lasts longer than a second.

    Reads: a part of the table.  Locks: ACCESS SHARE on it.  Raises: QueryFailed, PrivilegeMissing.
    """
    from sqlalchemy.exc import DBAPIError

    conn.exec_driver_sql(LIMITS)
    try:
        with conn.begin_nested():
            found = queries.frame(conn, "backfill/relations", table_name=table)
        leaves = [(str(r["relation"]), int(r["blocks"])) for r in found.to_dict("records") if r["blocks"]]
    except DBAPIError as error:
        if sqlstate(error) in ("55P03", "57014"):
            return Share(0, 0, 0, 0, 0, why=_LOCKED)
        raise from_driver(error, f"{table} could not be looked at", "Nothing was changed.") from error
    share = _looked(conn, leaves, worker, where, pages)
    return _looked(conn, leaves, worker, where, _FEWER) if share.why and "lock" not in share.why else share


_LOCKED = "the table is locked: the migration holds ACCESS EXCLUSIVE on it, or somebody waits for that"


def _looked(conn: Connection, leaves: Sequence[tuple[str, int]], worker: Worker, where: str, pages: int) -> Share:
    blocks = sum(count for _, count in leaves)
    total = Share(0, 0, 0, 0, blocks)
    squares = 0.0
    for relation, count in leaves:
        wanted = min(count, max(8, math.ceil(pages * count / blocks)))
        answer = counting.ask(conn, _sql(conn, relation, count, wanted, worker, where), timeout_ms=_TIMEOUT_MS)
        if answer.why:
            return Share(
                0, 0, 0, 0, blocks, why=_LOCKED if "lock" in answer.why else f"reading {wanted} pages {answer.why}"
            )
        done, left, other, read, moved = answer.rows[0]
        squares += float(moved or 0)
        total = Share(
            total.done + int(done), total.left + int(left), total.other + int(other), total.pages + int(read), blocks
        )
    # Neighbouring pages of an even sample tell how much the share still moves from page to page: the error of a stratified sample.
    spread = math.sqrt(squares / 2) / max(total.pages, 1) if total.pages > 1 else 0.0
    return Share(total.done, total.left, total.other, total.pages, blocks, spread)


def _sql(conn: Connection, relation: str, blocks: int, pages: int, worker: Worker, where: str) -> str:
    """Of evenly picked pages: visible rows that are done, to do, and neither; pages; the squared steps from page to page."""
    return f"""with mend_rows as materialized (
{_rows(conn, relation, blocks, pages, where)}
), mend_own as materialized (
{_own(worker)}
), mend_pages as (
  select r.page, count(o.x) as done, count(*) filter (where r.wanted and o.x is null) as left_,
         count(*) filter (where not r.wanted and o.x is null) as other
    from mend_rows as r left join mend_own as o on o.x = r.x
   group by r.page
), mend_steps as (
  select done, left_, other, power(done - lag(done) over (order by page), 2) as step from mend_pages
)
select coalesce(sum(done), 0), coalesce(sum(left_), 0), coalesce(sum(other), 0), {pages}, sum(step) from mend_steps"""


def _rows(conn: Connection, relation: str, blocks: int, pages: int, where: str) -> str:
    columns = f"cast(cast(t.xmax as text) as int8) as x, coalesce(({where or 'true'}), false) as wanted"
    if (
        queries.version_num(conn) < 140000 or pages >= blocks
    ):  # PostgreSQL 13 reads a range of a table's pages by reading all of them
        sample = f" tablesample system ({100 * pages / max(blocks, 1):.6f})" if pages < blocks else ""
        page = "cast(split_part(ltrim(cast(t.ctid as text), '('), ',', 1) as int8)"
        return f"  select {page} as page, {columns} from {relation} as t{sample}"
    # One page at a random place of each of equal parts; OFFSET 0 keeps the inner query apart, so that it is a TID range scan.
    return f"""  select p.page, h.x, h.wanted
    from (select cast(floor((n + random()) * {blocks} / {pages}.0) as int8) as page from generate_series(0, {pages - 1}) as n) as p
   cross join lateral (
     select {columns} from {relation} as t
      where t.ctid >= cast(format('(%s,0)', p.page) as tid) and t.ctid < cast(format('(%s,0)', p.page + 1) as tid) offset 0) as h"""


def _own(worker: Worker) -> str:
    """Which values of ``xmax`` are the worker's.

    Subtransactions have ids above that of their transaction.  The lock on a finished one is given up at once, so pg_locks does not show it;
    but it is in progress as long as its transaction is, and it is nobody else's.  An id that is newer than our snapshot cannot be
    asked about, and is in progress by that.
    """
    if not worker.xid:
        return "  select cast(null as int8) as x where false"
    top = int(worker.xid)
    return f"""  select w.x
    from (select x, snap + ((x - snap % 4294967296) + 6442450944) % 4294967296 - 2147483648 as whole, snap,
                 ((x - {top}) + 4294967296) % 4294967296 as after
            from (select distinct x, cast(cast(pg_snapshot_xmax(pg_current_snapshot()) as text) as int8) as snap
                    from mend_rows where x <> 0) as d) as w
   where w.x = {top}
      or (w.after between 1 and 2147483647
          and case when w.whole >= w.snap then true else pg_xact_status(cast(cast(w.whole as text) as xid8)) = 'in progress' end
          and w.x not in (select cast(cast(transactionid as text) as int8) from pg_locks
                           where locktype = 'transactionid' and granted and pid is distinct from {int(worker.pid)}))"""


def failed(share: Share) -> QueryFailed:
    """The error that says why there is no answer."""
    return QueryFailed(f"How far it is could not be seen: {share.why}. Nothing was changed.")

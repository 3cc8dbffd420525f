"""Looks at how far a migration is: several in a diagnosis, one after the other in a view that stays open.  Reads only."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import pandas as pd
from sqlalchemy import Connection

from mend.diagnosis import Site
from mend.errors import InvalidParameter, MendError
from mend.queue import waits
from mend.repairs import subject
from mend.slow import at_work, dml, eta, how_far
from mend.slow.at_work import Session, Work
from mend.slow.dml import Change
from mend.slow.eta import Course, Estimate, Look
from mend.values import expressions

LOOKS = 4  # evenly over the time given
_LASTS_S = 1.0
_MEASURED = ("update", "delete")


def course(site: Site, worker: Session, change: Change | None, table: str, watch_s: float) -> tuple[Course, str]:
    """The looks, evenly over the time; and why they say less than they should."""
    found: list[Course] = []
    why = ""
    deadline = time.monotonic() + watch_s
    for n in range(LOOKS):
        seen, why = once(site, worker, change, table)
        found += [seen] if seen.looks else []
        if not seen.looks or time.monotonic() >= deadline:
            break
        if n < LOOKS - 1:
            time.sleep(max(0.0, (deadline - time.monotonic()) / (LOOKS - 1 - n)))
    if not found:
        return Course("rows", ()), why
    first = found[0]
    zero = first.looks[0].at_s if first.began_s is None else first.began_s
    looks = tuple(replace(one, at_s=one.at_s - zero) for each in found for one in each.looks)
    return Course(first.unit, looks, None if first.began_s is None else 0.0, found[-1].how), why


def once(site: Site, worker: Session, change: Change | None, table: str) -> tuple[Course, str]:
    """One look, by this machine's clock: the progress view that PostgreSQL keeps, else the rows.  And why there is none."""
    with waits.glance(site.target, site.run_id) as conn:
        now = at_work.look(conn)
        same = at_work.same_session(worker, now.sessions)
        if same is None:
            return Course("rows", ()), "the session has ended, or is in another transaction"
        # A statement that lasts is timed by itself; of a loop's statements the transaction is what lasts.
        alone = change is not None and not change.batch_key and (worker.statement_s or 0.0) >= _LASTS_S
        at_s = time.monotonic()
        began_s = at_s - ((same.statement_s if alone else same.open_s) or 0.0)
        views = now.views(worker.pid)
        if len(views):
            row = views.iloc[0]
            total = 0.0 if pd.isna(row["total"]) else float(row["total"])
            how = f"{row['command']} {row['relation']}: {row['phase']} {row['detail']}".strip()
            whole = Look(at_s, float(row["done"]), max(total - float(row["done"]), 0.0))
            return Course(
                str(row["unit"]), (whole,) if total else (), None, how
            ), "" if total else f"{how}; PostgreSQL says no total"
        if change and table and change.kind in _MEASURED:
            return _by_rows(conn, same, change, table, at_s, began_s if same.xid else None)
        return Course("rows", ()), "no progress view speaks of it, and it changes no rows of a table that is there"


def _by_rows(
    conn: Connection, worker: Session, change: Change, table: str, at_s: float, began_s: float | None
) -> tuple[Course, str]:
    where = "" if change.given or change.why_not else _safe(conn, change.where, table)
    share = how_far.look(conn, table, how_far.Worker(worker.pid, worker.xid), where=where)
    if share.why:
        return Course("rows", ()), share.why
    how = f"of {share.pages:,} of {share.of:,} pages, rows whose xmax is its transaction" + (
        "" if where or not change.where else ", among all rows"
    )
    return Course("rows", (Look(at_s, share.rows_done, share.rows_left, share.error),), began_s, how), ""


def _safe(conn: Connection, where: str, table: str) -> str:
    """The statement's condition, where it is a pure expression of a row; else all rows are counted."""
    try:
        found = expressions.checked(conn, where, table=table) if where else None
    except MendError:
        return ""
    return where if found and found.type == "boolean" and not found.volatile else ""


@dataclass(frozen=True)
class Glimpse:
    """What a view shows that is looked at again and again."""

    work: Work
    worker: Session | None
    course: Course
    estimate: Estimate | None
    unmeasured: str

    def waits_behind(self) -> tuple[Session, ...]:
        """Who waits for the migration."""
        return self.work.waiting_for(self.worker.pid) if self.worker else ()


_SEEN: dict[
    tuple[str, int, str, str], tuple[Look, ...]
] = {}  # of this process: the looks at one statement, for its curve


def glimpse(site: Site, *, pid: int) -> Glimpse:
    """One short look, added to those before at the same work.  Raises: as the questions do."""
    with waits.glance(site.target, site.run_id) as conn:
        work = at_work.look(conn, pid=pid)
    worker = at_work.migration(work)
    if worker is None:
        return Glimpse(work, None, Course("rows", ()), None, "")
    change = None if worker.cut else dml.read(worker.query)
    table, _ = table_of(site, change)
    course, why = once(site, worker, change, table)
    key = (site.run_id, worker.pid, worker.began, f"{worker.xid} {dml.shape(worker.query)}")
    looks = eta.merged(_SEEN.get(key, ()), course.looks)
    _SEEN.clear()
    _SEEN[key] = looks
    whole = replace(course, looks=looks)
    return Glimpse(work, worker, whole, eta.estimate(whole), why)


def table_of(site: Site, change: Change | None) -> tuple[str, str]:
    """The table's qualified, quoted name; and why it is not known."""
    if change is None:
        return "", ""
    try:
        return subject.relation(site, change.table), ""
    except InvalidParameter as error:
        return "", error.message.partition(" Nothing was changed.")[0]

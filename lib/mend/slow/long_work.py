"""One migration at work, or about to be: which statement it is, how far it is, what it costs, and whether it can be done otherwise.  Reads only.

`slow_migration` is made from it.  No question waits for a lock longer than half a second, or lasts longer than a few seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from mend.change import weights
from mend.change.kept import columns_of
from mend.database import names, queries, sqltext
from mend.diagnosis import Site
from mend.errors import InvalidParameter, LockNotAcquired, QueryFailed, Refused
from mend.journal import sha256
from mend.queue import waits
from mend.queue.backends import Backend
from mend.repairs import halfway, subject
from mend.repairs.halfway import Seen
from mend.repairs.steps import Facets, Keeper
from mend.slow import at_work, dml, eta, explained, forward_file, looks, takeover, wear
from mend.slow.at_work import Session, Work
from mend.slow.dml import Change
from mend.slow.eta import Course, Estimate
from mend.slow.explained import Explained, Missing
from mend.slow.takeover import Takeover
from mend.slow.wear import Wear
from mend.values import counting
from mend.values.counting import Count

LOOKS = 4  # at how far it is, evenly over the time given
_LASTS_S = 1.0
_APART_S = 0.1  # between the beginnings of two statements; those of one are read within microseconds
_MEASURED = ("update", "delete")
_HARMLESS = re.compile(
    r"(?:set|reset) (?:local |session )?(?:\w+_timeout|(?:maintenance_)?work_mem|application_name|synchronous_commit|(?:log|client)_\w+|max_parallel_\w+)\b",
    re.IGNORECASE,
)  # what a session sets without its statements meaning anything else


@dataclass(frozen=True)
class Facts:
    """Everything that a plan is made from.

    ``halfway``: the pending revision, replayed; None without a project, or where ``blocked`` says why it could not be looked at.
    ``worker`` and ``backend``: the session of the migration; None where none is at work.  ``seen``: the statement of the revision that
    it runs, or (where none is at work) the one that would take its time.  ``sql``: that statement.  ``table``: qualified, quoted; ''
    where it changes no rows.  ``commits``: it commits again and again while it is looked at.
    """

    work: Work
    worker: Session | None
    backend: Backend | None
    halfway: halfway.Facts | None
    blocked: str
    seen: Seen | None
    sql: str
    change: Change | None
    table: str
    rows: float
    course: Course
    estimate: Estimate | None
    unmeasured: str
    explained: Explained
    missing: Missing | None
    wear: Wear
    take: Takeover
    left: Count | None
    commits: bool
    live: Facets
    keeper: Keeper
    given: Mapping[str, Any] = field(repr=False)

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """What else the journal keeps: the operations of the revision, and the looks at how far it is."""
        found = self.halfway.tables() if self.halfway else {}
        seen = [vars(look) | {"unit": self.course.unit} for look in self.course.looks]
        return found | ({"looks": seen} if seen else {})

    def waits_behind(self) -> tuple[Session, ...]:
        """Who waits for the migration."""
        return self.work.waiting_for(self.worker.pid) if self.worker else ()


def look(site: Site, *, revision: str, pid: int, statement: int, watch_s: float, given: Mapping[str, Any]) -> Facts:
    """Look at everything once, and several times at how far it is.

    Parameters
    ----------
    revision : the one in question; empty: the next that is pending
    pid : the session of the migration; 0: the one that looks like it
    statement : the operation of the revision that is meant, by number; 0: the one at work
    watch_s : seconds to spend on looking how far it is

    Raises: Refused where that pid is not at work; InvalidParameter, ProjectBroken, RevisionNotFound, ReplayFailed.
    """
    with waits.glance(site.target, site.run_id) as conn:
        before = wear.reading(conn)
        first = at_work.look(conn, pid=pid)
    worker = at_work.migration(first)
    _require_there(first, pid)
    found, blocked = _project(site, revision, at_work=worker is not None)
    with waits.glance(site.target, site.run_id) as conn:
        work = at_work.look(conn, statements=[one.statement.sql for one in found.seen] if found else (), pid=pid)
        worker = at_work.migration(work)
        backend = waits.sessions(conn, [worker.pid]).get(worker.pid) if worker else None
    seen = _statement(found, worker, statement)
    sql = seen.statement.sql if seen else worker.query if worker and not worker.hidden and not worker.cut else ""
    change = dml.read(sql) if sql else None
    table, nowhere = looks.table_of(site, change)
    live, keeper = _catalog(site, found, blocked)
    rows = _rows(site, table)
    course, unmeasured = looks.course(site, worker, change, table, watch_s) if worker else (Course("rows", ()), "")
    with waits.glance(site.target, site.run_id) as conn:
        plan = (
            explained.plan_of(conn, sql)
            if sql
            else Explained(pd.DataFrame(columns=explained.COLUMNS), why="no statement is known")
        )
        missing = _missing(plan, change, table, rows, live)
        worn = wear.look(conn, [table] if table else [], before=before)
        last = at_work.look(conn, pid=pid)
    commits = _commits(worker, [first, work, last])
    if commits:
        course = replace(course, began_s=None)
    looped = commits or _repeats(worker, [first, work, last]) or _loops(found, seen)
    take, left = _takeover(
        site, change, table, live, nowhere or blocked or _unknown(worker, seen, change, table, looped), worker
    )
    return Facts(
        work, worker, backend, found, blocked, seen, sql, change, table, rows, course, eta.estimate(course), unmeasured,
        plan, missing, worn, take, left, commits, live, keeper, given,
    )  # fmt: skip


def _commits(worker: Session | None, looks: list[Work]) -> bool:
    """Whether the session was in several transactions with the same statement: a loop that commits its batches."""
    if worker is None:
        return False
    same = [at_work.same_session(worker, one.sessions) for one in looks]
    shape = dml.shape(worker.query)
    return len({one.xact for one in same if one and dml.shape(one.query) == shape}) > 1


def _repeats(worker: Session | None, looks: list[Work]) -> bool:
    """Whether the session began the same statement anew in its transaction: a loop."""
    if worker is None:
        return False
    same = [one for look in looks if (one := at_work.same_session(worker, look.sessions))]
    began = [
        one.open_s - one.statement_s
        for one in same
        if one.open_s is not None and one.statement_s is not None and dml.shape(one.query) == dml.shape(worker.query)
    ]
    return bool(began) and max(began) - min(began) > _APART_S


def _loops(found: halfway.Facts | None, seen: Seen | None) -> bool:
    """Whether the revision's file sends the statement from within a loop."""
    if found is None or found.revision is None or seen is None:
        return False
    try:
        return forward_file.loops(found.revision.path.read_bytes().decode(), seen.statement.sql)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return False


def _unknown(worker: Session | None, seen: Seen | None, change: Change | None, table: str, looped: bool) -> str:
    """Why it is not known which rows it is about, or what values they get."""
    if worker and worker.cut and seen is None:
        return (
            "the server keeps only the beginning of its text (track_activity_query_size), so its condition is not known"
        )
    if change and change.limited and not looped:
        return "it picks so many rows alone (LIMIT), and no loop was seen that would send it until none is left"
    written = worker.writes() if worker else []
    if table and written and table not in written:
        return f"its session writes {', '.join(written[:3])} and not {table}: its search_path is another one"
    if seen and (own := [text for text in seen.statement.settings if not _HARMLESS.match(text)]):
        return f"it runs under settings of its own ({'; '.join(own[:3])}), and a repair does not"
    return ""


def _require_there(work: Work, pid: int) -> None:
    if pid and not any(one.pid == pid for one in work.sessions):
        there = ", ".join(f"{one.pid} ({one.role}, {one.state})" for one in work.sessions[:5]) or "none"
        raise Refused(
            f"pid {pid} has no work under way in this database: it has ended, or it is another server process. Nothing was changed, nobody was signalled. At work are: {there}. Leave pid empty, or name one of them."
        )


def _project(site: Site, revision: str, *, at_work: bool) -> tuple[halfway.Facts | None, str]:
    """The pending revision; what an open transaction has done of it is not there yet, so its row changes did not run."""
    if site.project is None:
        return None, ""
    try:
        return halfway.look(site, site.project, revision=revision, data_operations="not_run" if at_work else ""), ""
    except LockNotAcquired as error:
        return None, f"the definitions of the tables cannot be read, because they are locked. {error.message}"


def _statement(found: halfway.Facts | None, worker: Session | None, number: int) -> Seen | None:
    """The statement in question: named, at work, or the first that changes rows and did not run."""
    seen = found.seen if found else ()
    if number:
        named = [one for one in seen if one.statement.operation == number]
        if not named:
            raise InvalidParameter(
                f"The revision has no operation {number}. Nothing was changed. Leave statement at 0."
            )
        return next((one for one in named if one.statement.data), named[0])
    if worker:
        return _running(seen, worker)
    waiting = [
        one
        for one in seen
        if one.ran is not True and (change := dml.read(one.statement.sql)) and change.kind == "update"
    ]
    return waiting[0] if waiting else None


def _running(seen: Sequence[Seen], worker: Session) -> Seen | None:
    """The statement that a session runs; of several that differ in their values alone the one of the same text, or none."""
    shape = dml.shape(worker.query)
    same = [one for one in seen if dml.shape(one.statement.sql) == shape]
    if len(same) > 1:
        same = [one for one in same if _plain(one.statement.sql) == _plain(worker.query)]
    return same[0] if same else None


def _plain(sql: str) -> str:
    return " ".join(sqltext.without_comments(sql).split()).rstrip("; ")


def _catalog(site: Site, found: halfway.Facts | None, blocked: str) -> tuple[Facets, Keeper]:
    if found:
        return found.live, found.keeper
    live = {} if blocked else subject.snapshot(site)
    key = sha256(f"slow_migration {site.last_run}")[:16]
    return live, Keeper(site.target.settings.schema_name, key, {})


def _rows(site: Site, table: str) -> float:
    if not table:
        return 0.0
    with waits.glance(site.target, site.run_id) as conn:
        frame = queries.frame(conn, "at_work/relations", relations=[table])
        counted = float(frame["rows_estimate"].iloc[0]) if len(frame) else 0.0
        if counted:
            return counted
        guess = explained.plan_of(
            conn, f"select from {table}"
        ).nodes  # never analyzed: the planner goes by the table's size
    return float(guess["rows"].iloc[0]) if len(guess) else 0.0


def evidence(facts: Facts) -> dict[str, Any]:
    """What a plan's digest covers: the revision, its files and objects; the session, by all that names it; what would be changed."""
    found = halfway.evidence(facts.halfway) if facts.halfway else {"revision": None, "objects": {}}
    who = facts.backend
    return found | {
        "statement": facts.seen.statement.operation if facts.seen else 0,
        "session": f"pid {who.pid}, begun {who.backend_start}, statement {who.query_hash}" if who else None,
        "table": facts.table,
        "values": dict(facts.take.values),
        "where": facts.take.where,
        "rows_at_most": ceiling(facts),
    }


def comes_after(facts: Facts) -> str:
    """Why the statement cannot be done ahead of its revision: what the revision does to the same rows before it is not there; '' where nothing is.

    The end of its session rolls back what it did before, too; values and conditions would then be computed from other rows.
    """
    found = facts.halfway
    if found is None or found.revision is None:
        return ""
    if facts.seen is None:
        return f"which statement of revision {found.revision.id} it is cannot be said, so what comes before it is not known"
    if found.replayed.reads:
        return "upgrade() reads rows, so it may change the same rows before it by SQL that a replay cannot see"
    ahead = [one for one in found.seen[: found.seen.index(facts.seen)] if one.ran is not True and one.statement.data]
    numbers = [str(one.statement.operation) for one in ahead if _same_rows(dml.read(one.statement.sql), facts.table)]
    return (
        f"operation {', '.join(numbers)} of the revision changes rows of {facts.table} before it, and is rolled back with it"
        if numbers
        else ""
    )


def _same_rows(change: Change | None, table: str) -> bool:
    """Whether a change may write values into rows of a table that were there."""
    if change is None:
        return True
    return change.kind != "delete" and names.unquoted(names.last(change.table)) == names.unquoted(names.last(table))


def ceiling(facts: Facts) -> int:
    """The most rows that a takeover may change: by the catalog's own count, which does not move while it is reviewed."""
    return int(facts.given["at_most"]) or weights.ceiling(round(facts.rows))


# -- otherwise ----------------------------------------------------------------------------------------------------------


def _missing(plan: Explained, change: Change | None, table: str, rows: float, live: Facets) -> Missing | None:
    printed = {names.unquoted(one): one for one in columns_of(table, live)} if table else {}
    leading = frozenset(filter(None, (_leads(text, table) for (kind, _), text in live.items() if kind == "index")))
    keyed = frozenset(
        names.unquoted(names.items(next(p for p in names.pieces(text) if p.startswith("(")))[0])
        for (kind, one), text in live.items()
        if kind == "constraint" and names.parent(one) == table and text.startswith(("PRIMARY KEY", "UNIQUE"))
    )
    return (
        explained.missing(plan, change, table, rows=rows, printed=printed, indexed=leading | keyed) if table else None
    )


def _leads(definition: str, table: str) -> str:
    """The column that leads an index of this table; '' for another's, an expression, or one that is not used."""
    head, _, rest = definition.partition(" USING ")
    group = next((piece for piece in names.pieces(rest) if piece.startswith("(")), "")
    if not group or not head.endswith(f" ON {table}") or " INVALID" in definition:
        return ""
    return names.unquoted(names.spaced(names.items(group)[0])[0])


def _takeover(
    site: Site, change: Change | None, table: str, live: Facets, why_not: str, worker: Session | None
) -> tuple[Takeover, Count | None]:
    """Whether it can be taken over, and (where nothing is at work) how many rows are left to do."""
    if why_not or change is None or not table:
        return Takeover(table, {}, "", why_not or "it changes no rows of a table"), None
    try:
        with site.target.reading(site.run_id) as conn:
            take = takeover.examine(conn, change, table, live)
            counted = None if worker or not take.where else counting.of_table(conn, table, take.where)
    except QueryFailed as error:
        return Takeover(table, {}, "", error.message.partition(" Nothing was changed.")[0]), None
    return take, counted

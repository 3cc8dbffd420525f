"""What is asked of long work, and answered from `long_work.Facts`: one function a question.  Reads only."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pandas as pd

from mend.change import locks, weights
from mend.database import catalog, names
from mend.diagnosis import Check, Site, Verdict
from mend.queue import waits
from mend.repairs.halfway import Seen
from mend.slow import at_work, dml, eta, explained
from mend.slow.long_work import Facts

LONG_S = 10.0  # a statement that is estimated longer is worth saying before it starts


def running(facts: Facts) -> Check:
    """What runs now?"""
    asks = partial(
        Check, name="at_work", question="What runs now?", frame=facts.work.frame(), sql=facts.work.sql,
        healthy_when="No migration is at work.",
    )  # fmt: skip
    if facts.work.in_recovery:
        return asks(
            verdict="could_not_check",
            says="This is a standby.",
            why="this server is a standby: a migration runs on the primary, and only there can it be seen and ended",
        )
    unseen = (
        ""
        if facts.work.sees_all or not facts.work.hidden
        else f"this role may not see what {facts.work.hidden} sessions of other roles do: grant pg_monitor"
    )
    worker = facts.worker
    if worker is None:
        says = "No migration is at work." if not unseen else "None of those that can be seen is a migration."
        return asks(verdict="could_not_check" if unseen else "healthy", says=says, why=unseen)
    lasts = f" for {eta.span(worker.open_s)}" if worker.open_s is not None else ""
    which = (
        f", operation {facts.seen.statement.operation} of revision {facts.seen.statement.revision}"
        if facts.seen
        else ""
    )
    says = f"pid {worker.pid} (role {worker.role}) has been in its transaction{lasts}{which}: {worker.says}. It is taken for the migration because it {worker.signs[0].removeprefix('it ')}."
    if worker.hidden:
        return asks(
            verdict="could_not_check",
            says=says,
            why=f"pid {worker.pid} holds the version table, but this role may not see what it does: grant pg_monitor",
        )
    return asks(verdict="found", says=says)


def progress(facts: Facts) -> Check:
    """How far is it, and when will it be done?"""
    looks = [
        {
            "after_s": round(one.at_s, 1),
            "share_pct": round(100 * one.share, 1),
            "done": round(one.done),
            "left": round(one.left),
            "error": round(one.error),
            "unit": facts.course.unit,
        }
        for one in facts.course.looks
    ]
    asks = partial(
        Check, name="progress", question="How far is it, and when will it be done?",
        frame=pd.DataFrame(looks, columns=["after_s", "share_pct", "done", "left", "error", "unit"]),
        healthy_when="Nothing is under way.",
    )  # fmt: skip
    if facts.worker is None:
        if facts.left is not None and (facts.left.rows is None or facts.left.rows):
            return asks(
                verdict="found",
                says=f"Nothing is under way. {facts.left.says} rows are still to be changed by operation {facts.seen.statement.operation if facts.seen else '?'}.",
            )
        return asks(
            verdict="healthy", says="Nothing is under way." + (" No row is left to change." if facts.left else "")
        )
    if not facts.course.looks:
        return asks(
            verdict="could_not_check", says="It could not be seen.", why=f"{facts.unmeasured}. {_otherwise(facts)}"
        )
    return asks(
        verdict="found",
        says=f"{eta.words(facts.estimate, facts.course.unit).capitalize()}{_until(facts)}. Measured: {facts.course.how}.{_slower(facts)}",
    )


def _until(facts: Facts) -> str:
    """The end as a time of day."""
    if facts.estimate is None or facts.estimate.left_s is None:
        return ""
    return f", at {datetime.now(UTC) + timedelta(seconds=facts.estimate.left_s):%H:%M} UTC"


def _otherwise(facts: Facts) -> str:
    """What is known where the rows cannot be looked at."""
    plan = facts.explained.nodes
    rows = f"The plan expects about {facts.rows:,.0f} rows in the table. " if facts.rows else ""
    wal = facts.wear.frame[facts.wear.frame["what"] == "WAL"]["value"].tolist() if len(facts.wear.frame) else []
    return f"{rows}{f'The server writes {wal[0]} of WAL, which includes everybody. ' if wal else ''}How sure: not at all; it says only that work goes on{'' if len(plan) else ', and its statement cannot be explained meanwhile'}"


def _slower(facts: Facts) -> str:
    if facts.commits:
        return " It commits each of its batches: what is done stays, whatever ends it. Only what is left is known, and the pace of these seconds."
    if facts.change and facts.change.batch_key:
        return " Its loop passes over all that is done before each batch, so it gets slower: take the end for the earliest."
    return ""


def waiting(facts: Facts) -> Check:
    """Whom does it wait for, and who waits for it?"""
    worker = facts.worker
    behind = facts.waits_behind()
    rows = [
        {
            "pid": one.pid,
            "how": "waits for it",
            "statement_s": one.statement_s,
            "role": one.role,
            "application": one.application,
            "query": one.says,
        }
        for one in behind
    ]
    ahead = [one for one in facts.work.sessions if worker and one.pid in worker.blocked_by]
    rows += [
        {
            "pid": one.pid,
            "how": "it waits for this one",
            "statement_s": one.open_s,
            "role": one.role,
            "application": one.application,
            "query": one.says,
        }
        for one in ahead
    ]
    unknown = [pid for pid in (worker.blocked_by if worker else ()) if pid not in {one.pid for one in ahead}]
    rows += [
        {
            "pid": pid,
            "how": "it waits for this one",
            "statement_s": None,
            "role": "",
            "application": "a prepared transaction" if pid == 0 else "another database's, or not visible",
            "query": "",
        }
        for pid in unknown
    ]
    asks = partial(
        Check, name="waiting", question="Whom does it wait for, and who waits for it?", healthy_when="0 sessions wait.",
        frame=pd.DataFrame(rows, columns=["pid", "how", "statement_s", "role", "application", "query"]),
    )  # fmt: skip
    if worker is None:
        return asks(verdict="healthy", says="No migration is at work.")
    if worker.blocked_by:
        return asks(
            verdict="found",
            says=f"It waits for pid {', '.join(map(str, worker.blocked_by))}: it is not slow, it stands. `mend plan deadlock` shows the whole queue.",
        )
    what = worker.waits_for or "nothing: it computes"
    return asks(
        verdict="found" if behind else "healthy",
        says=f"{len(behind)} sessions wait for it. It itself waits for {what}.",
    )


def rewriting(site: Site, facts: Facts) -> Check:
    """What do the revision's statements lock, and which write a table anew?"""
    with waits.glance(site.target, site.run_id) as conn:
        utc = str(conn.exec_driver_sql("select current_setting('TimeZone')").scalar_one()) in (
            "UTC",
            "Etc/UTC",
            "GMT",
            "Etc/GMT",
            "Etc/UCT",
            "Zulu",
        )
    rows = [_predicted(one, facts, utc) for one in (facts.halfway.seen if facts.halfway else ()) if one.ran is not True]
    heavy = [row for row in rows if row["rewrite"] != "no" or row["estimated_s"] > LONG_S]
    asks = partial(
        Check, name="rewriting", question="What will the pending statements lock, and which write a table anew?",
        frame=pd.DataFrame(rows, columns=["operation", "statement", "lock", "rewrite", "table_rows", "estimated_s"]),
        healthy_when=f"No pending statement writes a table anew, and none is estimated longer than {LONG_S:.0f} s.",
    )  # fmt: skip
    if facts.blocked:
        return asks(verdict="could_not_check", says="The revision could not be looked at.", why=facts.blocked)
    if facts.halfway is None:
        return asks(verdict="not_asked", says="No Alembic project was named, so nothing pending is known.")
    if not rows:
        return asks(verdict="healthy", says="Nothing is pending.")
    anew = [str(row["operation"]) for row in rows if row["rewrite"] == "yes"]
    says = (
        f"Operation {', '.join(anew)} writes its table anew under ACCESS EXCLUSIVE."
        if anew
        else f"{len(rows)} statements; none is known to write its table anew."
        if not heavy
        else f"{len(rows)} statements; {len(heavy)} may take long."
    )
    return asks(verdict="found" if heavy else "healthy", says=says)


def _predicted(one: Seen, facts: Facts, utc: bool) -> dict[str, Any]:
    sql = one.statement.sql
    types = {
        names.last(c.identity): (c.before, c.after)
        for c in one.statement.changes
        if c.kind == "column" and c.before and c.after
    }
    anew = locks.rewrites(sql, types=types, utc=utc)
    sizes = facts.halfway.sizes if facts.halfway else {}
    taken = [lock for lock in locks.locks_of(sql) if lock.relation != "?"]
    strongest = max(taken, key=lambda lock: locks.MODES.index(lock.mode), default=None)
    rows = [
        size.rows for name, size in sizes.items() if strongest and names.last(strongest.relation) == names.last(name)
    ]
    return {
        "operation": one.statement.operation,
        "statement": one.statement.says,
        "lock": f"{strongest.mode} on {strongest.relation}" if strongest else "",
        "rewrite": {True: "yes", False: "no", None: "not known: assume yes"}[anew],
        "table_rows": rows[0] if rows else None,
        "estimated_s": weights.seconds(sql, sizes, rewrites=anew is not False),
    }


def plan_of(facts: Facts) -> Check:
    """How does PostgreSQL run the statement, and is an index missing?"""
    asks = partial(
        Check, name="plan", question="How does PostgreSQL run the statement, and is an index missing?", frame=facts.explained.nodes,
        sql=f"explain {facts.sql}" if facts.seen else "", healthy_when="No statement that is run again and again reads a whole table to find a few rows.",
    )  # fmt: skip
    if not facts.sql:
        return asks(verdict="not_asked", says="No statement is in question.")
    if facts.explained.why and dml.read(facts.sql):
        return asks(verdict="could_not_check", says="It could not be explained.", why=facts.explained.why)
    if facts.explained.why:
        return asks(verdict="not_asked", says=f"There is no plan to show: {facts.explained.why}.")
    if facts.missing:
        return asks(verdict="found", says=f"An index is missing: {facts.missing.says}.")
    scans = [str(scan["Relation Name"]) for scan in facts.explained.scans]
    if facts.change and facts.change.batch_key:
        return asks(
            verdict="found",
            says=f"Each batch looks for the next rows from the beginning again (ordered by {facts.change.batch_key}), and passes over all that is done: the further it is, the slower.",
        )
    return asks(
        verdict="healthy", says=f"It reads all of {', '.join(scans)} once." if scans else "It reads through indexes."
    )


def statements(site: Site) -> Check:
    """Which statements cost the most so far?"""
    with waits.glance(site.target, site.run_id) as conn:
        frame, why, sql = explained.statistics(conn)
    # It is an extra: without it nothing here is less true.
    says = f"Not known: {why}." if why else "Their shapes, the costliest first; what runs now is counted when it ends."
    return Check(
        "statements", "Which statements have cost the most so far (pg_stat_statements)?", "not_asked" if why else "healthy", says,
        "Nothing here is right or wrong: it tells where the time went.", frame, sql,
    )  # fmt: skip


def wear(facts: Facts) -> Check:
    """What does it cost the server?"""
    found = facts.wear
    unknown = f" Not known: {'; '.join(found.unknown)}." if found.unknown else ""
    says = ("; ".join(found.alarms) + "." if found.alarms else "Nothing stands out.") + unknown
    return Check(
        "wear", "What does it cost the server: WAL, replicas, dead rows, disk?", "found" if found.alarms else "healthy", says,
        "No replica is more than 10 s behind, no slot keeps WAL for nobody, and fewer than 20 % of the rows are dead.", found.frame, found.sql,
    )  # fmt: skip


def taken_over(facts: Facts) -> Check:
    """Can its work be done in batches, outside of the migration?"""
    take = facts.take
    asks = partial(
        Check, name="takeover", question="Can its work be done in short batches, outside of the migration?", sql=take.sql,
        frame=pd.DataFrame(list(_rules(facts)), columns=["rule", "holds"]),
        healthy_when="Nothing is under way, or the answer is yes.",
    )  # fmt: skip
    if not facts.sql and not (facts.worker and facts.worker.cut):
        return asks(
            verdict="healthy",
            says="No statement is in question.",
            frame=pd.DataFrame(columns=["rule", "holds"]),
            sql="",
        )
    if take.why_not:
        verdict: Verdict = "found" if facts.worker else "healthy"
        return asks(verdict=verdict, says=f"No: {take.why_not}.")
    notes = f" {'; '.join(take.notes)}." if take.notes else ""
    return asks(
        verdict="healthy",
        says=f"Yes: each value is a pure expression of its row, and a row that is done is not found again.{notes}",
    )


def _rules(facts: Facts) -> Iterator[tuple[str, str]]:
    take = facts.take
    yield (
        "it is one UPDATE of one table",
        "yes" if facts.change and facts.change.kind == "update" and not facts.change.why_not else "no",
    )
    yield (
        "its values are pure expressions of the row, and known",
        "yes" if take.values and not take.why_not else f"no: {take.why_not}" if take.why_not else "no",
    )
    yield "a row that is done is not found again", "yes" if not take.why_not else "not tried, or no"


def indexes_left(facts: Facts) -> list[str]:
    """Temporary indexes of ours that are still there."""
    return [
        identity
        for (kind, identity), text in facts.live.items()
        if kind == "index" and names.last(identity).startswith("mend_tmp_") and catalog.index_state(text)
    ]


def worth_watching(worker: at_work.Session) -> str:
    """One line about a session at work."""
    return f"pid {worker.pid}, {worker.state}, {eta.span(worker.open_s or 0.0)} in its transaction; {worker.waits_for or 'it computes'}: {worker.says}"

"""The answers of the deadlock runbook, from what `jam` read: who waits, behind what, whom ending it frees, what is hidden.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from mend.database import queries
from mend.diagnosis import Check, Verdict
from mend.queue.forest import MEANINGS, Forest, counted
from mend.queue.jam import Facts, why_not_ended

_MOST_PIDS = 30  # listed in one cell


def visibility(facts: Facts) -> Check:
    """Can this role see who waits, and behind whom?"""
    row = facts.seen
    frame = (
        pd.DataFrame(
            [{k: row[k] for k in ("role", "superuser", "sees_all", "may_signal", "sessions", "hidden", "hidden_roles")}]
        )
        if row
        else pd.DataFrame()
    )
    hidden = int(row["hidden"]) if row else 0
    why = facts.unseen or (
        f"{hidden} sessions of {row['hidden_roles']} are hidden: who waits is seen, but not what they run or since when. Grant pg_monitor to {row['role']}"
        if hidden
        else ""
    )
    signal = (
        ""
        if not row or row["may_signal"]
        else f" It may end only sessions of its own role: grant pg_signal_backend to {row['role']} for others."
    )
    to_be_seen = f"{hidden} of them hidden" if hidden else "all to be seen"
    says = (
        f"{counted(int(row['sessions']), 'other session')} of this database, {to_be_seen}.{signal}"
        if row
        else "It could not be asked."
    )
    return Check(
        "visibility",
        "What is hidden from this role?",
        "could_not_check" if why else "healthy",
        says,
        "0 sessions are hidden.",
        frame,
        why=why,
    )


def between(facts: Facts) -> Check:
    """Is a pooler in between, or is this a standby?"""
    found = []
    if facts.pooled:
        found.append(
            "A pooler stands in between: what looks like one client may be many, client addresses are the pooler's, and session locks and settings do not hold. Connect to the server directly."
        )
    if facts.in_recovery:
        found.append(
            "This is a standby: it only reads. What waits here waits for replay, or for a query here; nothing can be ended and recorded from here."
        )
    says = (
        " ".join(found)
        or "None could be seen. (A pooler that hands the server's own number through cannot be told from none.)"
    )
    return Check(
        "between",
        "Is a pooler in between, or is this a standby?",
        "found" if found else "healthy",
        says,
        "Neither is there.",
        pd.DataFrame(),
    )


def waiting(facts: Facts) -> Check:
    """Who waits behind whom?"""
    asks = ("waits", "Who waits behind whom?")
    healthy = f"Nobody has waited longer than {float(facts.given['min_wait_s']):g} s."
    if facts.forest is None:
        return Check(*asks, "could_not_check", "It could not be seen who waits.", healthy, why=facts.trouble)
    late = len(facts.late)
    longest = max((facts.forest.wait_of[pid].wait_s for pid in facts.late), default=0.0)
    shorter = len(facts.forest.blockers) - late
    more = f" {shorter} more wait for a moment." if shorter else ""
    says = (
        f"{counted(late, 'waiting session')}, the longest for {longest:,.0f} s, behind {counted(len(facts.jammed_roots), 'root')}.{more}"
        if late
        else f"Nobody has waited for a lock longer than {float(facts.given['min_wait_s']):g} s.{more}"
    )
    return Check(*asks, "found" if late else "healthy", says, healthy, wait_frame(facts.forest), _sql("waits/edges"))


def wait_frame(forest: Forest) -> pd.DataFrame:
    """One row per session or prepared transaction of the forest, each below the one that it stands behind; roots have level 0."""
    rows = []
    for depth, key in in_tree(forest):
        who, wait = forest.sessions.get(key), forest.wait_of.get(key)
        rows.append({
            "level": depth,
            "pid": key if key > 0 else None,
            "session": ", ".join(filter(None, (who.application, who.role))) if who else forest.named(key),
            "behind": ", ".join(_short(forest, blocker) for blocker in forest.blockers.get(key, ())[:5]),
            "wait_s": round(wait.wait_s, 1) if wait else None,
            "wants": f"{wait.mode} on {wait.object}" if wait else "",
            "because": "" if wait is None else "another asked before" if key in forest.soft else "it is held",
            "query": who.query if who else "",
        })  # fmt: skip
    return pd.DataFrame(rows, columns=list(_WAITS)).astype({"pid": "Int64", "level": "Int64"})


_WAITS = ("level", "pid", "session", "behind", "wait_s", "wants", "because", "query")


def _short(forest: Forest, key: int) -> str:
    return str(key) if key > 0 else forest.prepared[key].gid if key in forest.prepared else "?"


def in_tree(forest: Forest) -> Iterable[tuple[int, int]]:
    """(depth in the tree, key), each below its parent."""
    stack = [(0, key) for key in reversed(forest.roots)]
    while stack:
        depth, key = stack.pop()
        yield depth, key
        stack += [(depth + 1, child) for child in reversed(forest.children.get(key, ()))]


def roots(facts: Facts) -> Check:
    """What stands at the root of each queue?"""
    asks = ("roots", "What stands at the root of each queue?")
    healthy = f"No root has anybody behind it for longer than {float(facts.given['min_wait_s']):g} s."
    if facts.forest is None:
        return Check(*asks, "could_not_check", "It could not be seen who is in the way.", healthy, why=facts.trouble)
    forest = facts.forest
    rows = [_root(facts, forest, key) for key in facts.jammed_roots]
    columns = ["who", "what", "behind_it", "longest_wait_s", "open_s", "means", "may_be_ended", "query"]
    says = "; ".join(forest.told(key) for key in facts.jammed_roots[:3]) or "Nobody is in the way."
    return Check(*asks, "found" if rows else "healthy", says, healthy, pd.DataFrame(rows, columns=columns))


def _root(facts: Facts, forest: Forest, key: int) -> dict[str, Any]:
    who = forest.sessions.get(key)
    return {
        "who": forest.named(key),
        "what": forest.kind(key),
        "behind_it": len(forest.below(key)),
        "longest_wait_s": round(forest.longest_s(key), 1),
        "open_s": _rounded(who.open_s if who else forest.ages_s.get(key)),
        "means": MEANINGS[forest.kind(key)],
        "may_be_ended": why_not_ended(facts, key) or "yes",
        "query": who.query if who else "",
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def frees(facts: Facts) -> Check:
    """Who is freed if a root ends?"""
    asks = ("frees", "Who is freed if a root ends?")
    healthy = "Nobody waits."
    if facts.forest is None:
        return Check(*asks, "could_not_check", "It could not be seen who waits.", healthy, why=facts.trouble)
    forest = facts.forest
    rows = [_freed(forest, (key,)) for key in facts.jammed_roots]
    if len(facts.jammed_roots) > 1:
        rows.append(_freed(forest, facts.jammed_roots))
    columns = ["if_ended", "freed", "of_those_behind", "still_waiting_for", "pids"]
    says = (
        f"Ending {forest.named(facts.jammed_roots[0])} frees {rows[0]['freed']} of {rows[0]['of_those_behind']} that wait behind it."
        if rows
        else "Nobody waits."
    )
    return Check(*asks, "found" if rows else "healthy", says, healthy, pd.DataFrame(rows, columns=columns))


def _freed(forest: Forest, keys: tuple[int, ...]) -> dict[str, Any]:
    freed, behind = forest.freed_if_ended(keys), {pid for key in keys for pid in forest.below(key)}
    others = {root for pid in behind - freed for root in forest.roots_above(pid)} - set(keys)
    listed = sorted(freed)
    more = f" and {len(listed) - _MOST_PIDS} more" if len(listed) > _MOST_PIDS else ""
    return {
        "if_ended": "all of them" if len(keys) > 1 else forest.named(keys[0]),
        "freed": len(freed),
        "of_those_behind": len(behind),
        "still_waiting_for": "; ".join(forest.named(key) for key in sorted(others)),
        "pids": ", ".join(map(str, listed[:_MOST_PIDS])) + more,
    }


def prepared(facts: Facts) -> Check:
    """Does a prepared transaction hold anything up?"""
    forest = facts.forest
    in_way = {forest.prepared[key].gid for key in facts.jammed_roots if key in forest.prepared} if forest else set()
    frame = facts.prepared
    if len(frame):
        frame = frame.round({"age_s": 1}).assign(in_the_way=[row in in_way for row in frame["gid"]])[
            ["gid", "owner", "database", "age_s", "may_finish", "in_the_way"]
        ]
    says = (
        f"{len(in_way)} of {len(frame)} prepared transactions are in the way: {', '.join(sorted(in_way))}."
        if in_way
        else "It could not be seen who is in the way."
        if forest is None
        else f"{counted(len(frame), 'prepared transaction')} on this server; none is in the way."
    )
    verdict: Verdict = "could_not_check" if forest is None else "found" if in_way else "healthy"
    return Check(
        "prepared",
        "Does a prepared transaction hold anything up?",
        verdict,
        says,
        "No prepared transaction is in the way.",
        frame,
        _sql("waits/prepared"),
        why=facts.trouble,
    )


def migration(facts: Facts) -> Check:
    """Which revision is pending, and is a migration at work?"""
    asks = ("migration", "Which revision is pending, and is a migration at work?")
    healthy = "No migration is in the queue, and nobody holds what a retry needs."
    if facts.project_trouble:
        return Check(
            *asks, "could_not_check", "It is not known which revision is pending.", healthy, why=facts.project_trouble
        )
    forest = facts.forest or Forest()
    queued = [pid for pid in facts.migrators if pid in forest.blockers or pid in forest.waiters]
    frame = pd.DataFrame(
        [{"pid": pid, "session": forest.named(pid), "is": "waiting" if pid in forest.blockers else "in the way", "query": forest.sessions[pid].query} for pid in queued],
        columns=["pid", "session", "is", "query"],
    )  # fmt: skip
    pending = (
        f"Pending: {', '.join(facts.pending[:5])}{f' and {len(facts.pending) - 5} more' if len(facts.pending) > 5 else ''}."
        if facts.pending
        else "No revision is pending."
        if facts.applied
        else "No Alembic project was named, so it is not known what is pending."
    )
    at_work = (
        f" A migration is at work in {counted(len(queued), 'session')} of the queue, which hold{'s' if len(queued) == 1 else ''} a version table."
        if queued
        else ""
    )
    if facts.forest is None:
        return Check(
            *asks,
            "could_not_check",
            f"{pending} Whether a migration is at work could not be seen.",
            healthy,
            why=facts.trouble,
        )
    if facts.holders and not queued:
        held = f" {counted(len(facts.held), 'session')} in a transaction with tables that it touches, for which a retry would wait: {facts.held['holds'].iloc[0]}."
        columns = ["pid", "application", "role", "state", "open_s", "holds", "query"]
        return Check(*asks, "found", pending + held, healthy, facts.held[columns], _sql("surroundings/sessions"))
    return Check(*asks, "found" if queued else "healthy", pending + at_work, healthy, frame, _sql("waits/marks"))


def deadlocks(facts: Facts) -> Check:
    """Did PostgreSQL cancel somebody to end a deadlock?"""
    asks = ("deadlocks", "Did PostgreSQL cancel somebody to end a deadlock?")
    history = (
        f"{counted(int(facts.counters['deadlocks'].iloc[0]), 'deadlock')} ended by PostgreSQL in this database since {facts.counters['counted_since'].iloc[0]}."
        if len(facts.counters)
        else "The server's count could not be read."
    )
    if facts.deadlock is None:
        more = " The error text was given, but holds no DETAIL of a deadlock." if facts.given["detail"] else ""
        return Check(
            *asks,
            "healthy",
            history + more,
            "No deadlock is to be explained; a count alone is history.",
            facts.counters,
            _sql("deadlock/counters"),
        )
    told = facts.deadlock.told(facts.names)
    frame = pd.DataFrame(
        [
            {
                "pid": p.pid,
                "asked_for": p.mode,
                "on": facts.names.get(p.relation, p.asked),
                "held_by": p.blocked_by,
                "query": p.statement,
            }
            for p in facts.deadlock.processes
        ]
    )
    log = (
        ""
        if any(p.statement for p in facts.deadlock.processes)
        else " Their statements stand in the server's log only."
    )
    says = f"{'; '.join(told)}. {facts.deadlock.lesson(facts.names)}{log} {history}"
    return Check(
        *asks,
        "found",
        says,
        "No deadlock is to be explained; a count alone is history.",
        frame,
        _sql("deadlock/counters"),
    )


def _sql(name: str) -> str:
    return queries.question(name, version_num=180000).sql

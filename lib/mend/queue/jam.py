"""What the deadlock runbook looks at: the wait forest, what its roots are, whom ending them frees, and what cannot be seen.

`look` reads, each question in a transaction that gives up after a second; the checks are pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pandas as pd
from sqlalchemy import Connection

from mend.database import queries, sqltext
from mend.diagnosis import Site
from mend.errors import InvalidParameter, MendError
from mend.histories import history
from mend.queue import deadlock_detail, draining, waits
from mend.queue.backends import OURS, Backend, denied
from mend.queue.deadlock_detail import Deadlock
from mend.queue.forest import Forest
from mend.repairs import halfway

T = TypeVar("T")


@dataclass(frozen=True)
class Facts:
    """Everything that a plan is made from.

    ``forest`` is None where it could not be read, then ``trouble`` says why.  ``named``: the sessions that the operator named, None for
    a pid that nobody has.  ``pending``: revisions that wait, in order; ``revision``: the one in question.  ``held``: sessions
    that hold its tables.  ``halfway``: the replay, where the plan needs one.
    """

    forest: Forest | None
    trouble: str
    given: Mapping[str, Any]
    seen: Mapping[str, Any] = field(default_factory=dict)
    unseen: str = ""
    pooled: bool = False
    counters: pd.DataFrame = field(default_factory=pd.DataFrame)
    prepared: pd.DataFrame = field(default_factory=pd.DataFrame)
    named: Mapping[int, Backend | None] = field(default_factory=dict)
    deadlock: Deadlock | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    applied: frozenset[str] = frozenset()
    pending: tuple[str, ...] = ()
    revision: str = ""
    project_trouble: str = ""
    halfway: halfway.Facts | None = None
    halfway_trouble: str = ""
    held: pd.DataFrame = field(default_factory=pd.DataFrame)
    in_recovery: bool = False

    @property
    def holders(self) -> frozenset[int]:
        """Sessions that hold a table which the replayed revision touches: they are in its way before it has even asked."""
        return frozenset(int(pid) for pid in self.held["pid"]) if len(self.held) else frozenset()

    @property
    def late(self) -> tuple[int, ...]:
        """Who has waited longer than ``min_wait_s``, longest first."""
        waits_ = sorted((self.forest or Forest()).wait_of.values(), key=lambda wait: -wait.wait_s)
        return tuple(wait.pid for wait in waits_ if wait.wait_s >= float(self.given["min_wait_s"]))

    @property
    def jammed_roots(self) -> tuple[int, ...]:
        """The roots with somebody behind them who has waited too long."""
        forest = self.forest or Forest()
        above = {root for pid in self.late for root in forest.roots_above(pid)}
        return tuple(root for root in forest.roots if root in above)

    @property
    def migrators(self) -> tuple[int, ...]:
        """Sessions of the forest that hold a version table: a migration is at work in them."""
        forest = self.forest or Forest()
        return tuple(pid for pid in forest.sessions if pid in forest.marks and forest.marks[pid].version_table)


def named_pids(text: str) -> tuple[int, ...]:
    """The pids of a parameter.

    Raises: InvalidParameter.

    >>> named_pids("4711, 4712")
    (4711, 4712)
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdigit() and 0 < int(word) < 2**31 for word in words):
        raise InvalidParameter(
            f"blockers is {text!r}. Nothing was changed. Write pids, separated by commas: 4711, 4712."
        )
    return tuple(dict.fromkeys(int(word) for word in words))


def look(site: Site, given: Mapping[str, Any], *, settle_s: float = 0.0) -> Facts:
    """Look once; with ``settle_s``, until the queue has drained, at most that many seconds.

    Raises: InvalidParameter.
    """
    pids = named_pids(str(given["blockers"]))
    detail = deadlock_detail.parse(str(given["detail"]))
    forest, trouble = _asked(lambda: _forest(site, given, settle_s))
    seen, unseen = _asked(lambda: _read(site, _visibility))
    counters, _ = _asked(lambda: _read(site, lambda conn: queries.frame(conn, "deadlock/counters")))
    prepared, unlisted = _asked(lambda: _read(site, lambda conn: queries.frame(conn, "waits/prepared")))
    named, unnamed = _asked(lambda: _read(site, lambda conn: waits.sessions(conn, pids)))
    if trouble := trouble or unlisted or unnamed:
        forest = None  # an answer in part would show somebody as gone, or as in nobody's way
    names, _ = _asked(lambda: _read(site, lambda conn: _names(conn, detail)))
    applied, pending, project_trouble = _revisions(site)
    return Facts(
        forest=forest,
        trouble=trouble,
        given=given,
        seen=(seen or {}) if isinstance(seen, dict) else {},
        unseen=unseen,
        pooled=bool(seen and seen["pooled"]),
        counters=counters if counters is not None else pd.DataFrame(),
        prepared=prepared if prepared is not None else pd.DataFrame(),
        named={pid: (named or {}).get(pid) for pid in pids},
        deadlock=detail,
        names=names or {},
        applied=applied,
        pending=pending,
        revision=str(given["revision"]) or (pending[0] if pending else ""),
        project_trouble=project_trouble,
        in_recovery=site.identity.in_recovery,
    )


def _asked(question: Callable[[], T]) -> tuple[T | None, str]:
    """The answer, or why there is none: one question that cannot be answered must not hide the others."""
    try:
        return question(), ""
    except InvalidParameter:
        raise
    except MendError as error:
        return None, error.message


def _read(site: Site, question: Callable[[Connection], T]) -> T:
    with waits.glance(site.target, site.run_id) as conn:
        return question(conn)


def _forest(site: Site, given: Mapping[str, Any], settle_s: float) -> Forest:
    first = _read(site, waits.look)
    if not settle_s or any(pid in first.waiters for pid in named_pids(str(given["blockers"]))):
        return first  # whoever was to be ended is in the way still: that does not change by waiting
    least_s = float(given["min_wait_s"])
    return draining.until_drained(site.target, site.run_id, min_wait_s=least_s, patience_s=settle_s).forest


def _visibility(conn: Connection) -> dict[str, Any]:
    """What the role may see, and whether the server that answers is the one that we logged in to: a pooler gives a number of its own."""
    row = queries.frame(conn, "deadlock/visibility").iloc[0].to_dict()
    driver: Any = conn.connection.dbapi_connection
    return {str(k): v for k, v in row.items()} | {
        "pooled": bool(row["poolers"]) or driver.info.backend_pid != int(row["backend_pid"])
    }


def _names(conn: Connection, found: Deadlock | None) -> dict[int, str]:
    """oid -> name of the relations of a pasted deadlock, of those that are of this database."""
    if found is None or not found.relations():
        return {}
    frame = queries.frame(conn, "deadlock/relations", oids=found.relations())
    here = {p.relation for p in found.processes for row in frame.itertuples() if p.database in (0, row.database_oid)}
    return {int(row["oid"]): str(row["name"]) for row in frame.to_dict("records") if int(row["oid"]) in here}


def _revisions(site: Site) -> tuple[frozenset[str], tuple[str, ...], str]:
    """(applied revisions, pending ones, why that is not known); from the files and the version table, without a replay."""
    if site.project is None:
        return frozenset(), (), ""
    try:
        past = history.read(site.project.alembic_ini, python=site.project.python)
        frame = _read(site, history.version_rows)
        rows = tuple(sorted({str(row) for row in frame["version_num"] if str(row) in past.revisions}))
        return frozenset(past.ancestors(rows)), tuple(history.pending(past, rows)), ""
    except MendError as error:
        return frozenset(), (), error.message


def why_not_ended(facts: Facts, key: int) -> str:
    """Why a root cannot be ended by a plan; '' where it can."""
    forest = facts.forest or Forest()
    if key in forest.prepared:
        return (
            ""
            if key in forest.may_finish
            else f"only {forest.prepared[key].owner} or a superuser may finish it, in database {forest.prepared[key].database}"
        )
    who = forest.sessions.get(key)
    if who is None:
        return "it is gone, or not visible"
    why = denied(who, superusers=bool(facts.given["end_superusers"]))
    return why or (
        "" if who.may_signal else f"this role may not signal sessions of {who.role}: grant pg_signal_backend"
    )


def replayed(site: Site, facts: Facts) -> Facts:
    """The same, with the replay of the revision in question: what of it is missing, and where env.py leads.

    Reads definitions, so it may have to wait half a second for whoever holds a table; it then gives up and says who.
    """
    if site.project is None or not facts.revision:
        return facts
    try:
        found = halfway.look(site, site.project, revision=facts.revision, data_operations="")
    except MendError as error:
        return replace(facts, halfway_trouble=error.message)
    with site.target.reading(site.run_id) as conn:
        held = queries.frame(conn, "surroundings/sessions", relations=sorted(found.tables_touched()), own=OURS)
    held = held[held["holds"] != ""].assign(query=held["query"].map(sqltext.shape)).round({"open_s": 1})
    return replace(facts, halfway=found, held=held)


def picked(facts: Facts) -> tuple[int, ...]:
    """The keys of those to be ended: the named ones; else, of what must end together for somebody to be freed, what frees most.

    At most ``at_most`` of them, or the smallest set of all where even that is larger.
    """
    forest, most = facts.forest or Forest(), int(facts.given["at_most"])
    if facts.named or facts.given["gid"]:
        gids = [key for key, one in forest.prepared.items() if one.gid == facts.given["gid"]]
        return (*facts.named, *gids)
    together = {forest.roots_above(pid) for pid in facts.late}
    ranked = sorted(together, key=lambda keys: (-len(forest.freed_if_ended(keys)) / len(keys), len(keys), sorted(keys)))
    found: set[int] = set()
    for keys in ranked:
        if len(found | keys) <= most:
            found |= keys
    smallest = min(together, key=len, default=frozenset[int]())
    return tuple(sorted(found or smallest))

"""While a statement of ours waits for others without a timeout, as CREATE INDEX CONCURRENTLY must: says for whom.  Reads only.

Each look is a transaction of its own: one that lasted would hold a snapshot, and the statement would come to wait for that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mend.change.writer import Writer
from mend.database import queries, sqltext
from mend.errors import MendError

_LOOK_S = 2.0
_AGAIN_LOOKS = 15  # the same blockers are named again after so many looks


@contextmanager
def told(writer: Writer, n: int, pid: int) -> Iterator[None]:
    """Journal (``waits``) and tell whom backend ``pid`` of step ``n`` waits for, when it changes and every half minute."""
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(writer, n, pid, ended), name="mend-waits", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _watch(writer: Writer, n: int, pid: int, ended: threading.Event) -> None:
    told: list[int] = []
    looks = 0
    while not ended.wait(_LOOK_S):
        try:
            found = _blockers(writer, pid)
        except MendError as error:
            writer.progress(f"step {n + 1}: whom it waits for could not be seen: {error.message}")
            return
        pids = [int(one["pid"]) for one in found]
        looks = looks + 1 if pids == told else 0
        if found and looks % _AGAIN_LOOKS == 0:
            writer.journal.append("waits", {"step": n, "blockers": found})
            writer.progress(f"step {n + 1}: waits for {named(found)}")
        told = pids


def _blockers(writer: Writer, pid: int) -> list[dict[str, Any]]:
    with writer.target.reading(writer.run_id) as conn:
        frame = queries.frame(conn, "execute/waited_for", pid=pid)
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    # Other people's statements hold values, which are not to be journaled.
    return [{str(k): v for k, v in row.items()} | {"query": sqltext.shape(str(row["query"]))} for row in rows]


def named(blockers: list[dict[str, Any]]) -> str:
    """The blockers in words: who, since when, doing what.

    >>> named([{"pid": 7, "state": "idle in transaction", "open_s": 61.2, "application": "", "role": "app", "kind": "client backend"}])
    'pid 7 (app, unnamed, idle in transaction, open 61 s)'
    """
    return "; ".join(_said(one) for one in blockers[:3]) + (
        f" and {more} more" if (more := len(blockers) - 3) > 0 else ""
    )


def _said(one: dict[str, Any]) -> str:
    if one["pid"] == 0:
        return "a prepared transaction (see pg_prepared_xacts)"
    who = one["role"] or one["kind"]  # a maintenance process has no role
    return (
        f"pid {one['pid']} ({who}, {one['application'] or 'unnamed'}, {one['state']}, open {one['open_s'] or 0:.0f} s)"
    )

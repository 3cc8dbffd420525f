"""Who waits behind whom, read from the server in one short look that gives up after a second.  Reads only.

Looking takes no lock that anybody could wait for: catalogs and statistics views alone, names by a join with pg_class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from mend.database import queries
from mend.database.target import Target
from mend.queue import backends
from mend.queue.backends import Backend
from mend.queue.ending import Prepared
from mend.queue.forest import Forest, Marks, Wait

_LIMITS = {"lock_timeout": 200, "statement_timeout": 1000}  # milliseconds


@contextmanager
def glance(target: Target, run_id: str = "-") -> Iterator[Connection]:
    """A read-only session that waits for nobody and gives up after a second.  Raises as ``Target.reading``."""
    with target.reading(run_id) as conn:
        for setting, value in _LIMITS.items():
            conn.exec_driver_sql(f"set local {setting} = {value}")
        yield conn


def sessions(conn: Connection, pids: Iterable[int]) -> dict[int, Backend]:
    """pid -> session, of those that are there."""
    rows = queries.frame(conn, "waits/sessions", pids=sorted(set(pids))).astype(object).to_dict("records")
    return {int(row["pid"]): backends.of_row({str(key): value for key, value in row.items()}) for row in rows}


def look(conn: Connection, *, version_tables: Iterable[str] = ()) -> Forest:
    """The wait forest at this moment; empty where nobody of this database waits.

    Parameters
    ----------
    conn : of ``glance``, so that it gives up in time
    version_tables : names of version tables besides those called alembic_version
    """
    edges = queries.frame(conn, "waits/edges").astype(object).to_dict("records")
    if not edges:
        return Forest()
    prepared = queries.frame(conn, "waits/prepared").astype(object).to_dict("records")
    waits = tuple(_wait({str(key): value for key, value in row.items()}) for row in edges)
    pids = {key for wait in waits for key in (wait.pid, wait.blocker) if key > 0}
    marks = queries.frame(conn, "waits/marks", names=sorted(version_tables)).to_dict("records")
    named = {-int(row["xid"]): row for row in prepared}
    return Forest(
        sessions=sessions(conn, pids),
        prepared={key: Prepared(*(str(row[part]) for part in _PREPARED)) for key, row in named.items()},
        waits=waits,
        marks={int(row["pid"]): Marks(str(row["version_table"]), str(row["advisory"])) for row in marks},
        ages_s={key: float(row["age_s"]) for key, row in named.items()},
        may_finish=frozenset(key for key, row in named.items() if row["may_finish"] and row["here"]),
    )


_PREPARED = ("gid", "xid", "prepared_at", "owner", "database")


def _wait(row: Mapping[str, Any]) -> Wait:
    return Wait(
        pid=int(row["pid"]),
        blocker=int(row["blocker"]) or -int(row["prepared_xid"] or 0),
        mode=_mode(str(row["mode"])),
        object=str(row["object"]),
        locktype=str(row["locktype"]),
        wait_s=max(0.0, float(row["wait_s"])),
        hard=bool(row["hard"]),
        held=", ".join(_mode(one) for one in str(row["held"]).split(", ") if one),
    )


def _mode(name: str) -> str:
    """``AccessExclusiveLock`` as the documentation writes it.

    >>> _mode("AccessExclusiveLock"), _mode("ShareLock")
    ('ACCESS EXCLUSIVE', 'SHARE')
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.removesuffix("Lock")).upper()

"""What long work costs the server: WAL, replicas, slots, dead rows, room on disk.  Reads only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mend.database import queries
from mend.errors import sqlstate

COLUMNS = ["what", "value", "says"]
_LAG_S, _DEAD_SHARE = 10.0, 0.2  # what is worth saying


@dataclass(frozen=True)
class Reading:
    """Where the server's counters stood: ``at_s`` by its own clock."""

    at_s: float
    written_bytes: float
    temp_bytes: float


def reading(conn: Connection) -> Reading:
    """The counters now."""
    row = queries.frame(conn, "wear/server").iloc[0]
    return Reading(float(row["at_s"]), float(row["written_bytes"]), float(row["temp_bytes"]))


def rate(before: Reading, now: Reading) -> float | None:
    """Bytes of WAL a second between two readings."""
    lasted = now.at_s - before.at_s
    return (now.written_bytes - before.written_bytes) / lasted if lasted > 0.1 else None


@dataclass(frozen=True)
class Wear:
    """``frame``: one row per thing that was looked at; ``alarms``: what is too much, in sentences; ``unknown``: what cannot be seen."""

    frame: pd.DataFrame
    alarms: tuple[str, ...]
    unknown: tuple[str, ...]
    sql: str


def look(conn: Connection, relations: Iterable[str], *, before: Reading | None = None) -> Wear:
    """Look once, at the tables named too."""
    rows: list[tuple[str, str, str]] = []
    alarms: list[str] = []
    unknown = ["free room on the server's disks: SQL does not show it; look with df"]
    server = queries.frame(conn, "wear/server")
    now = reading(conn)
    pace = rate(before, now) if before else None
    if pace is not None:
        rows.append(
            (
                "WAL",
                f"{size(pace)}/s",
                f"of the whole server; a checkpoint at the latest every {size(float(server['max_wal_bytes'].iloc[0]))}",
            )
        )
    if now.temp_bytes:
        rows.append(("temporary files", size(now.temp_bytes), "written by this database since its statistics began"))
    for part in (_replicas, _slots, _tables, _tablespaces):
        try:
            with conn.begin_nested():
                part(conn, sorted(set(relations)), rows, alarms)
        except DBAPIError as error:
            unknown.append(f"{part.__name__[1:]}: the question failed (SQLSTATE {sqlstate(error)})")
    return Wear(pd.DataFrame(rows, columns=COLUMNS), tuple(alarms), tuple(unknown), server.attrs["sql"])


def _replicas(conn: Connection, _: list[str], rows: list[tuple[str, str, str]], alarms: list[str]) -> None:
    for row in queries.frame(conn, "backfill/replicas").to_dict("records"):
        lag = row["lag_s"]
        known = lag == lag and lag is not None
        rows.append((f"replica {row['replica']}", f"{lag:.1f} s behind" if known else "not known", str(row["state"])))
        if known and lag > _LAG_S:
            alarms.append(f"replica {row['replica']} is {lag:.0f} s behind")


def _slots(conn: Connection, _: list[str], rows: list[tuple[str, str, str]], alarms: list[str]) -> None:
    for row in queries.frame(conn, "wear/slots").to_dict("records"):
        kept = row["retained_bytes"]
        kept = kept if kept == kept else 0.0
        rows.append(
            (
                f"slot {row['slot']}",
                f"{size(kept)} of WAL kept",
                f"{row['kind']}, {'active' if row['active'] else 'not active'} {row['wal_status']}",
            )
        )
        if not row["active"] or row["wal_status"] in ("unreserved", "lost"):
            alarms.append(
                f"slot {row['slot']} is {'not active' if not row['active'] else row['wal_status']} and keeps {size(kept)} of WAL"
            )


def _tables(conn: Connection, relations: list[str], rows: list[tuple[str, str, str]], alarms: list[str]) -> None:
    for row in queries.frame(conn, "wear/tables", relations=relations).to_dict("records"):
        live, dead = float(row["live_rows"]), float(row["dead_rows"])
        share = dead / (live + dead) if live + dead else 0.0
        vacuumed = row["last_vacuum"]
        when = (
            f"last vacuum {vacuumed:%Y-%m-%d %H:%M} UTC"
            if not pd.isna(vacuumed)
            else "never vacuumed since its statistics began"
        )
        rows.append(
            (
                f"table {row['relation']}",
                f"{dead:,.0f} dead rows",
                f"{share:.0%} of {live + dead:,.0f}; {when}; what the migration leaves is counted when its transaction ends",
            )
        )
        if share > _DEAD_SHARE:
            alarms.append(
                f"{share:.0%} of the rows of {row['relation']} are dead: it is that much larger than it need be until it is vacuumed"
            )


def _tablespaces(conn: Connection, _: list[str], rows: list[tuple[str, str, str]], __: list[str]) -> None:
    for row in queries.frame(conn, "wear/tablespaces").to_dict("records"):
        known = row["bytes"] == row["bytes"]
        rows.append(
            (
                f"tablespace {row['tablespace']}",
                size(row["bytes"]) if known else "not known",
                "used" if known else "this role may not measure it: grant pg_monitor",
            )
        )


def size(count: Any) -> str:
    """
    >>> size(0), size(15_300), size(2_500_000_000)
    ('0 B', '15.3 kB', '2.5 GB')
    """
    number = float(count)
    for unit, of in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(number) >= of:
            return f"{number / of:.1f} {unit}"
    return f"{number:.0f} B"

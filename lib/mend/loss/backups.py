"""Whether a point in time before the migration could be had back, as far as the server itself tells.  Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pandas as pd
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mend import errors
from mend.database import queries
from mend.diagnosis import Check

COLUMNS = ["what", "value", "says"]


@dataclass(frozen=True)
class Backups:
    """``frame``: one row per thing that was looked at; ``lacking``: why no point in time can be had, '' where it can; ``unknown``: what is hidden."""

    frame: pd.DataFrame
    lacking: str
    unknown: str
    sql: str


def look(conn: Connection) -> Backups:
    """Archiving, replicas, slots."""
    frame = queries.frame(conn, "data_loss/backups")
    one = frame.iloc[0]
    archived, failed = (None if pd.isna(when) else when for when in (one["last_archived"], one["last_failed"]))
    rows = [
        ("wal_level", str(one["wal_level"]), "minimal keeps too little to go back" if one["wal_level"] == "minimal" else ""),
        ("archive_mode", str(one["archive_mode"]), f"{int(one['archived'])} segments archived, the last {_when(archived)}"),
        ("archiving failed", f"{int(one['failed'])} times", f"the last time {_when(failed)}"),
    ]  # fmt: skip
    unknown = ["a dump or a snapshot that somebody takes"]
    for part in (_replicas, _slots):
        try:
            with conn.begin_nested():
                rows += part(conn)
        except DBAPIError as error:
            unknown.append(f"{part.__name__[1:]}: the question failed (SQLSTATE {errors.sqlstate(error)})")
    lacking = _lacking(str(one["wal_level"]), str(one["archive_mode"]), archived, failed)
    return Backups(pd.DataFrame(rows, columns=COLUMNS), lacking, "; ".join(unknown), frame.attrs["sql"])


def _lacking(level: str, mode: str, archived: pd.Timestamp | None, failed: pd.Timestamp | None) -> str:
    if level == "minimal" or mode == "off":
        return "WAL is not archived, so no point in time can be had back by it"
    if archived is None:
        return "WAL archiving is on, and nothing was ever archived"
    if failed is not None and failed > archived:
        return "the last attempt to archive WAL failed"
    return ""


def _when(moment: pd.Timestamp | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"


def _replicas(conn: Connection) -> list[tuple[str, str, str]]:
    found = queries.frame(conn, "backfill/replicas").to_dict("records")
    return [
        (
            f"replica {row['replica']}",
            f"{row['lag_s']:.1f} s behind"
            if row["lag_s"] == row["lag_s"] and row["lag_s"] is not None
            else "not known",
            f"{row['state']}; a delay that is set on purpose (recovery_min_apply_delay) shows as lag while something is written",
        )
        for row in found
    ] or [("replicas", "none seen", "")]


def _slots(conn: Connection) -> list[tuple[str, str, str]]:
    return [
        (f"slot {row['slot']}", str(row["kind"]), "active" if row["active"] else "not active")
        for row in queries.frame(conn, "wear/slots").to_dict("records")
    ]


def check(backups: Backups) -> Check:
    """Could a backup bring it back?"""
    asks = partial(
        Check,
        name="backups",
        question="Could a backup bring it back?",
        healthy_when="WAL is archived, and the last attempt to archive it succeeded.",
        frame=backups.frame,
        sql=backups.sql,
    )
    if backups.lacking:
        return asks(
            verdict="found",
            says=f"As far as the server tells, no: {backups.lacking}. Not seen from here: {backups.unknown}.",
        )
    return asks(
        verdict="healthy",
        says=f"WAL is archived. Not seen from here: whether there is a base backup to go with it; {backups.unknown}.",
    )

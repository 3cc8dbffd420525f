"""Whether there is room for the copies: estimated from the statistics, compared with what is free where that can be known.  Reads only."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from sqlalchemy import Connection

from mend.database import queries
from mend.diagnosis import Check, Site
from mend.slow.wear import size

ROW_BYTES = 32  # header, item pointer and padding of one row
COLUMNS = ["copy_of", "rows", "bytes"]


@dataclass(frozen=True)
class Wanted:
    """A copy to be made: ``columns`` of ``rows`` rows of a table; ``whole_bytes``: of the whole table, where it is copied whole."""

    table: str
    columns: tuple[str, ...]
    rows: int
    whole_bytes: int = 0


@dataclass(frozen=True)
class Space:
    """``needed_bytes``: of the copies, once more for their WAL.  ``free_bytes``: None where nobody knows; ``why`` not, or who says so."""

    frame: pd.DataFrame
    needed_bytes: int
    free_bytes: int | None
    why: str
    sql: str = ""

    @property
    def refuses(self) -> str:
        """Why the copies must not be made; '' where they may."""
        if self.free_bytes is None or self.needed_bytes <= self.free_bytes:
            return ""
        return (
            f"the copies and their WAL need about {size(self.needed_bytes)}, and {size(self.free_bytes)} are free ({self.why}); "
            "make room, or let the copies go to a larger tablespace (default_tablespace of the role)"
        )


def look(conn: Connection, site: Site, wanted: Iterable[Wanted], *, free_gb: float) -> Space:
    """Estimate, and find out what is free; ``free_gb``: what the operator says, 0 where nothing."""
    copies = list(wanted)
    widths = queries.frame(conn, "data_loss/widths", relations=sorted({one.table for one in copies}))
    rows = [[one.table, one.rows, _bytes(one, widths)] for one in copies]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    needed = 2 * int(frame["bytes"].sum())
    if free_gb > 0:
        return Space(frame, needed, int(free_gb * 1e9), "as free_gb says", widths.attrs["sql"])
    free, why = _free(conn, site)
    return Space(frame, needed, free, why, widths.attrs["sql"])


def _bytes(one: Wanted, widths: pd.DataFrame) -> int:
    if one.whole_bytes:
        return one.whole_bytes
    own = widths[(widths["relation"] == one.table) & widths["column_name"].isin(one.columns)]
    # Of values out of line the statistics count the pointer, so all that lies there is added: too much rather than too little.
    return one.rows * (ROW_BYTES + int(own["width_bytes"].sum())) + int(own["toast_bytes"].max() if len(own) else 0)


def _free(conn: Connection, site: Site) -> tuple[int | None, str]:
    """Bytes that are free where the copies will lie, or why nobody knows."""
    row = queries.frame(conn, "data_loss/directory").iloc[0]
    if not row["data_directory"]:
        return (
            None,
            "this role may not ask where the server's files lie (grant pg_read_all_settings); look with df, and say free_gb",
        )
    directory = Path(str(row["data_directory"]))
    try:
        with (directory / "global" / "pg_control").open("rb") as file:
            (identifier,) = struct.unpack("=Q", file.read(8))
    except (OSError, struct.error):
        return None, "the server's files are on another machine, or not ours to see; look with df, and say free_gb"
    if str(identifier) != site.identity.system_identifier:
        return None, "the server is on another machine; look with df, and say free_gb"
    places = [directory, *([Path(str(row["tablespace"]))] if row["tablespace"] else [])]
    try:
        return min(shutil.disk_usage(place).free for place in places), "seen on this machine"
    except OSError as error:
        return None, f"it could not be read: {error.strerror}"


def check(space: Space) -> Check:
    """Is there room for the copies?"""
    asks = partial(
        Check,
        name="room",
        question="Is there room for the copies?",
        healthy_when="The copies and their WAL fit twice into what is free.",
        frame=space.frame,
        sql=space.sql,
    )
    needs = f"The copies and their WAL need about {size(space.needed_bytes)}"
    if space.free_bytes is None:
        return asks(verdict="could_not_check", says=f"{needs}.", why=f"what is free is not known: {space.why}")
    fits = 2 * space.needed_bytes <= space.free_bytes
    return asks(
        verdict="healthy" if fits else "found", says=f"{needs}; {size(space.free_bytes)} are free ({space.why})."
    )

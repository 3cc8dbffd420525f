"""What the pending revisions of a project would destroy in one database, and how many rows and values that is.  Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from sqlalchemy.exc import DBAPIError

from mend import errors
from mend.database import names, queries
from mend.diagnosis import Site
from mend.errors import InvalidParameter, ReplayFailed
from mend.histories import history
from mend.loss import losses
from mend.loss.losses import Loss
from mend.repairs import halfway
from mend.repairs.halfway import Facts as Halfway
from mend.replays import expected, scratch
from mend.replays.recording import Statement
from mend.values import counting

OPERATIONS = ["revision", "operation", "action", "object", "rows", "values", "counted", "bytes", "detail"]
COUNT_MS = 5000


@dataclass(frozen=True)
class Stake:
    """One loss with what it is about in this database.

    ``table``: the live table's name ('' where there is none).  ``rows`` that it touches, ``values`` that are lost of them; None: not
    known.  ``counted``: ``exact``, ``sampled`` or ``estimated``; ``why`` not exact.
    """

    loss: Loss
    table: str = ""
    rows: int | None = None
    values: int | None = None
    counted: str = ""
    size_bytes: int = 0
    why: str = ""

    @property
    def loses(self) -> bool:
        """Whether anything is lost, or may be."""
        return self.rows is None or bool(self.values if self.loss.lost and self.values is not None else self.rows)


@dataclass(frozen=True)
class Facts:
    """Everything that a plan is made from.

    ``stakes``: of every pending revision.  ``revision``: the one in question, '' where nothing pending destroys anything.  ``half``: how
    far that one is in this database.  ``unknown``: why the revisions behind it are not known.
    """

    half: Halfway
    stakes: tuple[Stake, ...]
    statements: tuple[Statement, ...]
    pending: tuple[str, ...]
    revision: str
    unknown: str
    warnings: tuple[str, ...]

    def own(self) -> tuple[Stake, ...]:
        """Those of the revision in question."""
        return tuple(one for one in self.stakes if one.loss.revision == self.revision)

    def frame(self) -> pd.DataFrame:
        """One row per loss."""
        rows = [
            {
                "revision": one.loss.revision, "operation": one.loss.operation, "action": one.loss.action,
                "object": one.loss.identity or one.loss.detail, "rows": one.rows, "values": one.values,
                "counted": one.counted + (f": {one.why}" if one.why else ""), "bytes": one.size_bytes, "detail": one.loss.detail or one.loss.unsure,
            }
            for one in self.stakes
        ]  # fmt: skip
        frame = pd.DataFrame(rows, columns=OPERATIONS)
        return frame.astype({"rows": "Int64", "values": "Int64", "operation": "Int64", "bytes": "Int64"})

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """What else the journal keeps: every loss."""
        rows = self.frame().astype(object).where(self.frame().notna(), None).to_dict("records")
        return {"losses": [{str(key): value for key, value in row.items()} for row in rows]}


def look(site: Site, *, revision: str, data_operations: str = "", count_ms: int = COUNT_MS) -> Facts:
    """Read the project and the target, replay what is pending, count what it would destroy.

    Raises: InvalidParameter where no project was named; ProjectBroken, RevisionNotFound, ReplayFailed, PrivilegeMissing.
    """
    if site.project is None:
        raise InvalidParameter(
            "No Alembic project was named. Nothing was changed. Pass alembic_ini, or set it for this target in mend.toml."
        )
    past = history.read(site.project.alembic_ini, python=site.project.python)
    with site.target.reading(site.run_id) as conn:
        tables, found = history.version_tables(conn), history.version_rows(conn)
        roles = tuple(queries.frame(conn, "target/roles")["role"])
    environ = halfway.probed(site.project) if len(tables) > 1 else None
    rows = halfway.version_table(environ, tables, found).rows if environ else tuple(found["version_num"])
    pending = history.pending(past, set(rows))
    statements, unknown, warnings = _pending(site, rows, pending, roles)
    lost = losses.of(statements)
    chosen = past.get(revision).id if revision else next((one.revision for one in lost), "")
    half = halfway.look(site, site.project, revision=chosen, data_operations=data_operations)
    if unknown and not statements:  # then the one in question is all that is known
        statements = half.replayed.statements
        lost = losses.of(statements) if half.revision and not half.stamped else []
        chosen = chosen or next((one.revision for one in lost), "")
    stakes = _counted(site, lost, statements, half, count_ms)
    return Facts(half, stakes, statements, pending, chosen, unknown, warnings)


def _pending(
    site: Site, rows: Sequence[str], pending: Sequence[str], roles: Sequence[str]
) -> tuple[tuple[Statement, ...], str, tuple[str, ...]]:
    """The statements of everything that is pending; why they are not known; what a reader must know of how they were found."""
    if not pending:
        return (), "", ()
    assert site.project is not None
    own = site.target.settings
    try:
        found = expected.expected(
            site.project,
            rows,
            scratch=scratch.choose(site.target, version_num=site.identity.version_num, roles=roles),
            base=own.base,
            base_revision=own.base_revision,
            progress=lambda done, total, text: site.progress(f"{text} ({done} of {total})"),
        )
    except ReplayFailed as error:
        return (), f"of what comes after it nothing is known: {error.message}", ()
    waiting = set(pending)
    statements = tuple(one for step in found.steps if step.place.revision in waiting for one in step.statements)
    stopped = (
        f"in scratch, what is pending fails at {found.stopped}; what comes after that is not known"
        if found.stopped
        else ""
    )
    return statements, stopped, found.warnings


def _counted(
    site: Site, lost: Sequence[Loss], statements: Sequence[Statement], half: Halfway, count_ms: int
) -> tuple[Stake, ...]:
    new = losses.made(statements)
    lost = [one for one in lost if one.identity not in new and one.table not in new]
    if not lost:
        return ()
    live = {identity for kind, identity in half.live if kind == "table"}
    columns = {identity for kind, identity in half.live if kind == "column"}
    found = []
    with site.target.reading(site.run_id) as conn:
        there = {one.table: losses.live_name(one.table, live) for one in lost if one.table}
        frame = queries.frame(conn, "data_loss/sizes", relations=sorted({name for name in there.values() if name}))
        sizes = {row["relation"]: row for row in frame.to_dict("records")}
        for one in lost:
            table = there.get(one.table, "")
            found.append(_stake(conn, one, table, sizes.get(table), columns, count_ms))
    return tuple(found)


def _stake(
    conn: Any, loss: Loss, table: str, size: Mapping[Any, Any] | None, columns: set[str], count_ms: int
) -> Stake:
    if not table or size is None:
        why = loss.unsure or "no table of that name is there yet: an earlier pending revision makes or renames it"
        return Stake(loss, why=why, counted="not counted")
    if loss.unsure:
        return Stake(loss, table, None, None, "not counted", int(size["size_bytes"]), loss.unsure)
    if loss.column and not _has(table, loss.column, columns):
        return Stake(
            loss, table, None, None, "not counted", int(size["size_bytes"]), "no column of that name is there yet"
        )
    return _asked(conn, loss, table, size, count_ms)


def _has(table: str, column: str, columns: set[str]) -> bool:
    """Whether the live table has the column; one of a partition stands with the parent, so only a miss beside others counts."""
    own = {one for one in columns if names.parent(one) == table}
    return not own or f"{table}.{column}" in own


def _asked(conn: Any, loss: Loss, table: str, size: Mapping[Any, Any], count_ms: int) -> Stake:
    """Counted exactly where that ends in time, else in evenly picked pages, else as the statistics have it."""
    bytes_ = int(size["size_bytes"])
    source = f"only {table}" if loss.action == "drop table" else table
    counts = "count(*)" + (f", count(*) filter (where {loss.lost})" if loss.lost else ", null")
    where = f" where ({loss.where})" if loss.where else ""
    try:
        exact = counting.ask(conn, f"select {counts} from {source} as t{where}", timeout_ms=count_ms)
        if not exact.why:
            rows, values = exact.rows[0]
            return Stake(loss, table, int(rows), None if values is None else int(values), "exact", bytes_)
        share = min(100.0, max(0.01, 100.0 * 20_000_000 / max(bytes_, 1)))
        some = counting.ask(
            conn, f"select {counts} from {source} as t tablesample system ({share:.4f}){where}", timeout_ms=count_ms
        )
    except DBAPIError as error:
        return Stake(
            loss, table, None, None, "not counted", bytes_, f"the question failed (SQLSTATE {errors.sqlstate(error)})"
        )
    if some.why:
        return Stake(loss, table, int(size["rows_estimate"]), None, "estimated", bytes_, exact.why)
    rows, values = (None if one is None else int(int(one) * 100 / share) for one in some.rows[0])
    return Stake(
        loss, table, rows, values, "sampled", bytes_, f"{share:.2g} % of its pages; the exact count {exact.why}"
    )

"""What version_skew looks at: the revisions of code and database, what two versions of the application expect, and what each schema says to that.

Reads only.  A schema that is not the live one is made for real in a scratch database: the live schema's copy with the pending revisions run
on it, or the history as far as the version before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pandas as pd
from sqlalchemy import Connection, column, select, table

from mend.change import weights
from mend.change.kept import Keeper
from mend.database import catalog, holders, queries
from mend.diagnosis import Site
from mend.errors import InvalidParameter, MendError, ProjectBroken, ReplayFailed
from mend.histories import history
from mend.histories.history import History
from mend.histories.project import Environment, Project
from mend.journal import sha256
from mend.repairs import halfway, steps
from mend.repairs.steps import Facets
from mend.repairs.versions import VersionTable
from mend.replays import scratch
from mend.replays.expected import Expected, expected
from mend.replays.expected import Step as Operation
from mend.skew import application, notes, safety, schemas
from mend.skew.application import Application
from mend.skew.notes import Note
from mend.skew.safety import Judged
from mend.skew.schemas import Cell

if TYPE_CHECKING:
    from mend.skew.gates import Gate
    from mend.slow.takeover import Takeover

_OWN = "mend:"


@dataclass(frozen=True)
class Facts:
    """Everything that a plan is made from.

    ``pending``: revisions of the code that the database lacks, up to the goal, parents first.  ``unknown``: version rows that no file has.
    ``made``: what the history makes, None where it could not be replayed (``unreplayed`` says why).  ``needs``: the first pending revision
    after which the new application works; '' where none does, or that is not known.  ``changed_at``: when the schema changed last, if
    known, and how that is known.  ``phase`` and what follows it `phases` fills: the phase that is due, what to write (column -> expression), how
    the history's row changes are made in batches (by their SQL), the answers of the gate.
    """

    past: History
    project: Project
    environment: Environment | MendError
    table: VersionTable
    version_rows: pd.DataFrame
    version_sql: str
    live: Facets
    made: Expected | None
    unreplayed: str
    pending: tuple[str, ...]
    unknown: tuple[str, ...]
    old_heads: tuple[str, ...]
    cells: tuple[Cell, ...]
    needs: str
    judged: tuple[Judged, ...]
    sessions: pd.DataFrame
    changed_at: datetime | None
    changed_how: str
    notes: tuple[Note, ...]
    keeper: Keeper
    major: int
    sizes: Mapping[str, weights.Size]
    given: Mapping[str, Any] = field(default_factory=dict)
    phase: str = ""
    fills: Mapping[str, str] = field(default_factory=dict)
    takeovers: Mapping[str, Takeover] = field(default_factory=dict)
    gates: tuple[Gate, ...] = ()

    def cell(self, app: str, schema: str) -> Cell:
        """One cell of the matrix, by names."""
        return next(one for one in self.cells if (one.application.name, one.schema.name) == (app, schema))

    def live_cells(self) -> tuple[Cell, ...]:
        """Both applications with the schema as it is."""
        return tuple(one for one in self.cells if one.schema.live)

    def operations(self, upto: Sequence[str] = ()) -> tuple[Operation, ...]:
        """The operations of the pending revisions; ``upto``: of these only."""
        wanted = set(upto or self.pending)
        return tuple(one for one in (self.made.steps if self.made else ()) if one.place.revision in wanted)


def look(site: Site, project: Project, **given: Any) -> Facts:
    """Read the project and the target, load the applications, make the other schema, ask both.

    Raises: InvalidParameter, ProjectBroken, RevisionNotFound, PrivilegeMissing.
    """
    past = history.read(project.alembic_ini, python=project.python)
    if past.broken:
        raise ProjectBroken(
            f"{past.broken[0].path}: {past.broken[0].problem}. Nothing was changed. Mend the history first (migration_conflict)."
        )
    told_at = _told_time(given["changed_at"])
    with ThreadPoolExecutor(3) as beside, ExitStack() as stack:
        asked = beside.submit(halfway.probed, project)
        before = (
            stack.enter_context(application.checked_out(project, given["old_ref"])) if given["old_ref"] else project
        )
        loading = [
            beside.submit(
                application.load,
                name,
                home,
                metadata=given[f"{prefix}metadata"],
                statements=given[f"{prefix}statements"],
                by_env=not prefix,
            )
            for name, home, prefix in _sources(project, before, given)
        ]
        old_heads = _old_heads(past, before if given["old_ref"] else None, given["old_revision"])
        with holders.named(site.target, site.run_id), site.target.reading(site.run_id) as conn:
            tables, found = history.version_tables(conn), history.version_rows(conn)
            live = catalog.facets(catalog.snapshot(conn))
            roles = tuple(queries.frame(conn, "target/roles")["role"])
            noted = notes.standing(conn, site.target.settings.schema_name)
        environ = asked.result()
        applications = tuple(one.result() for one in loading)
    versions = halfway.version_table(environ, tables, found)
    server = scratch.choose(site.target, version_num=site.identity.version_num, roles=roles)
    unknown = tuple(row for row in versions.rows if row not in past.revisions)
    pending = () if unknown else _pending(past, versions.rows, given["revision"])
    if unknown:  # the code is the older side: what it expects is the old application
        applications = _swapped(applications)
    with server:
        made, unreplayed = _made(site, project, past, versions, server)
        other = schemas.Other(
            site,
            project,
            past,
            versions,
            server,
            environ,
            applications,
            pending,
            old_heads,
            bool(unknown),
            any(one.phase == notes.SHIM for one in noted) or bool(notes.standing_changes(noted)),
        )
        cells, needs = other.matrix()
    changed, how = _changed(site, versions, told_at, noted)
    operations = [one for one in (made.steps if made else ()) if one.place.revision in pending]
    with site.target.reading(site.run_id) as conn:
        seconds = changed.timestamp() if changed else None
        sessions = queries.frame(conn, "version_skew/sessions", changed_s=seconds, own=_OWN)
    return Facts(
        past=past, project=project, environment=environ, table=versions,
        version_rows=halfway.placed(found, versions, past), version_sql=tables.attrs["sql"], live=live, made=made, unreplayed=unreplayed,
        pending=pending, unknown=unknown, old_heads=old_heads, cells=cells, needs=needs, judged=safety.judged(operations, live),
        sessions=sessions, changed_at=changed, changed_how=how, notes=noted,
        keeper=Keeper(site.target.settings.schema_name, sha256(f"skew {site.last_run}")[:16], steps.primary_keys(live)),
        major=site.identity.version_num // 10000, sizes=_sizes(site, operations, live), given=given,
    )  # fmt: skip


def _sources(
    project: Project, before: Project, given: Mapping[str, Any]
) -> tuple[tuple[application.Name, Project, str], ...]:
    """Name, home and prefix of the parameters of the new application and the old one; of a git ref the old one is the same by name."""
    same = before is not project and not (given["old_metadata"] or given["old_statements"])
    return ("new", project, ""), ("old", before, "" if same else "old_")


def _swapped(applications: tuple[Application, ...]) -> tuple[Application, ...]:
    new, old = applications
    return applications if old.given else (replace(old, name="new"), replace(new, name="old"))


def _told_time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidParameter(
            f"changed_at is {text!r}. Nothing was changed. Write it as 2026-11-22T23:40:00+00:00."
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _old_heads(past: History, before: Project | None, old_revision: str) -> tuple[str, ...]:
    """What the version before knows last, where that was told."""
    if old_revision:
        return (past.get(old_revision).id,)
    return history.read(before.alembic_ini, python=before.python).heads if before else ()


def _pending(past: History, rows: Sequence[str], revision: str) -> tuple[str, ...]:
    goal = [past.get(revision).id] if revision else list(past.heads)
    wanted = past.ancestors(goal)
    return tuple(one for one in history.pending(past, rows) if one in wanted)


def _made(
    site: Site, project: Project, past: History, versions: VersionTable, server: scratch.Scratch
) -> tuple[Expected | None, str]:
    """What the history makes, or why that is not known."""
    own = site.target.settings
    rows = [row for row in versions.rows if row in past.revisions] or (list(past.heads) if versions.rows else [])
    try:
        found = expected(
            project, rows, scratch=server, base=own.base, base_revision=own.base_revision,
            progress=lambda done, total, text: site.progress(f"{text} ({done} of {total})"),
        )  # fmt: skip
        return found, ""
    except ReplayFailed as error:
        return None, error.message


def _changed(
    site: Site, versions: VersionTable, told: datetime | None, noted: Sequence[Note]
) -> tuple[datetime | None, str]:
    """When the schema changed last, and how that is known."""
    if told:
        return told, "as you say"
    with site.target.reading(site.run_id) as conn:
        kept = bool(queries.frame(conn, "version_skew/changed_at")["kept"].iloc[0])
        if kept and versions.exists and (times := _commit_times(conn, versions)):
            return max(times), "the commit of the version row (track_commit_timestamp)"
    if noted:
        return noted[-1].noted_at, f"run {noted[-1].run_id} of mend"
    return (
        None,
        "PostgreSQL keeps no time of a change of schema (track_commit_timestamp is off); say it with changed_at",
    )


def _commit_times(conn: Connection, versions: VersionTable) -> list[datetime]:
    from sqlalchemy import func, literal_column

    rows = select(func.pg_xact_commit_timestamp(literal_column("xmin"))).select_from(
        table(versions.name, column("version_num"), schema=versions.schema)
    )
    return [row[0] for row in conn.execute(rows) if row[0] is not None]


def _sizes(site: Site, operations: Sequence[Operation], live: Facets) -> dict[str, weights.Size]:
    wanted = {halfway.relation_of(c) for one in operations for c in one.changes}
    wanted |= {weights.table_changed(s.sql) for one in operations for s in one.statements}
    with site.target.reading(site.run_id) as conn:
        frame = queries.frame(conn, "target/sizes", relations=sorted(wanted - {""}))
    return {
        str(row["relation"]): weights.Size(int(row["rows_estimate"]), int(row["size_bytes"]))
        for row in frame.to_dict("records")
    }

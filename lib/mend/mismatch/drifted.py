"""What environment_mismatch looks at: the live catalog, what the history makes of its revisions, another database.  Reads only."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mend.change import weights
from mend.change.kept import Keeper
from mend.database import catalog, holders, names, parameters, queries
from mend.database.catalog import Change
from mend.database.target import Target, resolve
from mend.diagnosis import Site
from mend.errors import MendError, ProjectBroken, ReplayFailed
from mend.histories import history
from mend.histories.history import History
from mend.histories.project import Environment, Project
from mend.journal import sha256
from mend.mismatch import drift
from mend.mismatch.drift import Drift
from mend.repairs import halfway, steps, violations
from mend.repairs.versions import VersionTable
from mend.replays import scratch
from mend.replays.expected import Expected, Facets, expected

_MOST_FILES = 30  # revision files whose past is asked of git
_MOST_ASKED = 20  # wanted constraints whose rows are looked at
_GIT_S = 10.0


@dataclass(frozen=True)
class Edit:
    """What git knows of an applied revision's file: it was changed after it first came, or is changed and not committed."""

    revision: str
    path: str
    says: str


@dataclass(frozen=True)
class Facts:
    """Everything that a plan is made from.

    ``against``: what the live catalog is compared with, in words.  ``shared``: version tables of others in schemas that this history
    uses, so that what is out of band there may be theirs.  ``unknown``: version rows that no file has.  ``unreplayed``: why
    the history could not be replayed, where another database was named.
    """

    past: History
    project: Project
    environment: Environment | MendError
    table: VersionTable
    version_rows: pd.DataFrame
    version_sql: str
    drift: Drift
    against: str
    shared: tuple[str, ...]
    unknown: tuple[str, ...]
    unreplayed: str
    server: pd.DataFrame
    server_there: pd.DataFrame | None
    edits: tuple[Edit, ...]
    obstacles: Mapping[str, str]
    keeper: Keeper
    major: int
    sizes: Mapping[str, weights.Size]

    @property
    def live(self) -> Facets:
        """The live catalog."""
        return self.drift.live

    @property
    def expected(self) -> Expected:
        """What the history makes."""
        return self.drift.expected

    def parents(self) -> dict[str, tuple[str, ...]]:
        """Each revision's parents and dependencies: alembic keeps a row for neither."""
        return {one: self.past.parents(one) for one in self.past.revisions}

    def fitting_rows(self) -> tuple[str, ...]:
        """The version rows of the revision that the live catalog fits best."""
        best = self.drift.best
        return drift.heads(self.expected.ran[: best.revisions], self.parents()) if best else self.table.rows

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """What else the journal keeps: every difference."""
        return {"differences": [one.as_record() for one in self.drift.differences]}


def look(site: Site, project: Project, *, other: str, base: str, base_revision: str, roles: bool) -> Facts:
    """Read the project and the target, replay the history, compare.

    Raises: ProjectBroken, RevisionNotFound, ReplayFailed, PrivilegeMissing, TargetUnknown, TargetUnreachable.
    """
    past = history.read(project.alembic_ini, python=project.python)
    require_whole(past)
    there = resolve(other) if other else None
    with ThreadPoolExecutor(2) as pool:  # env.py takes as long as its imports
        asked = pool.submit(halfway.probed, project)
        read = pool.submit(_other, there, site.run_id) if there else None
        with holders.named(site.target, site.run_id), site.target.reading(site.run_id) as conn:
            tables, found = history.version_tables(conn), history.version_rows(conn)
            live = catalog.facets(catalog.snapshot(conn))
            server = queries.frame(conn, "environment_mismatch/server")
            users = tuple(queries.frame(conn, "target/roles")["role"])
        known = {row for row in found["version_num"] if row in past.revisions}
        one = not len(tables) > 1
        environ = None if one else asked.result()
        table = halfway.version_table(environ or ProjectBroken(""), tables, found)
        rows = tuple(row for row in (known if one else table.rows) if row in past.revisions)
        made, unreplayed = _expected(site, project, rows, users, base, base_revision, needed=not there)
        environ = asked.result()
    table = halfway.version_table(environ, tables, found)
    major = site.identity.version_num // 10000
    others = _others(tables, table, made, live)
    compared = _compared(made, live, table, past, major, roles, others)
    against, server_there = _in_words(made, compared, table, past), None
    if read is not None:
        theirs, server_there, version = read.result()
        compared = replace(compared, wanted=theirs, other=True, cross=version // 10000 != major, apart=frozenset())
        against = f"{other}, another database"
    return Facts(
        past=past,
        project=project,
        environment=environ,
        table=table,
        version_rows=halfway.placed(found, table, past),
        version_sql=tables.attrs["sql"],
        drift=compared,
        against=against,
        shared=others[1],
        unknown=tuple(row for row in table.rows if row not in past.revisions),
        unreplayed=unreplayed,
        server=server,
        server_there=server_there,
        edits=_edits(past, compared),
        obstacles=_obstacles(site, compared),
        keeper=Keeper(
            site.target.settings.schema_name, sha256(f"mismatch {site.last_run}")[:16], steps.primary_keys(live)
        ),
        major=major,
        sizes=_sizes(site, compared),
    )


def require_whole(past: History) -> None:
    """Raises: ProjectBroken where alembic itself could not load the history."""
    if past.missing_parents:
        child, lacking = next(iter(past.missing_parents.items()))
        raise ProjectBroken(
            f"Revision {child} comes after {', '.join(lacking)}, which no file has, so alembic cannot load the history and nobody can say what "
            f"it makes. Nothing was changed. Restore the file first ({parameters.pointer('migration_conflict')})."
        )
    if bad := [one for one in past.broken if not one.problem.startswith("the id has")]:
        raise ProjectBroken(f"{bad[0].path}: {bad[0].problem}. Nothing was changed. Repair the file and run again.")


def _expected(
    site: Site,
    project: Project,
    rows: Sequence[str],
    roles: Sequence[str],
    base: str,
    base_revision: str,
    *,
    needed: bool,
) -> tuple[Expected, str]:
    """What the history makes; where another database was named, it may be that nobody knows."""
    own = site.target.settings
    server = scratch.choose(site.target, version_num=site.identity.version_num, roles=roles)
    dump = Path(base).expanduser() if base else own.base
    try:
        made = expected(
            project, rows, scratch=server, base=dump, base_revision=base_revision or own.base_revision,
            progress=lambda done, total, text: site.progress(f"{text} ({done} of {total})"),
        )  # fmt: skip
        return made, ""
    except ReplayFailed as error:
        if needed:
            raise
        return Expected((), {}, {}, (), (), 0, (), "", "", (), "", ""), error.message


def _others(
    tables: pd.DataFrame, table: VersionTable, made: Expected, live: Facets
) -> tuple[frozenset[str], tuple[str, ...]]:
    """(schemas that hold another version table and nothing of this history, version tables of others in schemas that do)."""
    others = {(str(s), str(t)) for s, t in zip(tables["schema"], tables["table"], strict=True)}
    others -= {(table.schema, table.name)}
    if not others:
        return frozenset(), ()
    facets = {*made.base.items(), *made.facets.items()}
    facets |= {((c.kind, c.identity), c.after or "") for step in made.steps for c in step.changes}
    used = {one for key, text in facets for one in drift.schemas(*key, text)}
    mine = {one for one in others if one[0] in used | {table.schema}}
    known = [i for kind, i in live if kind == "table" and tuple(map(names.unquoted, names.split(i))) in mine]
    return frozenset(schema for schema, _ in others - mine), tuple(i for i in known if ("table", i) not in made.facets)


def _compared(
    made: Expected,
    live: Facets,
    table: VersionTable,
    past: History,
    major: int,
    roles: bool,
    others: tuple[frozenset[str], tuple[str, ...]],
) -> Drift:
    """Against the revisions that are recorded; where those are not known, against the revision that fits best."""
    own = len([step for step in made.steps if step.own])
    cross = not made.server_version.startswith(f"{major}.")
    apart, shared = others
    ignored = frozenset(shared) | (frozenset() if table.exists else frozenset({table.quoted().replace('"', "")}))
    who = drift.migrator(made.facets, live, scratch=made.migrator)

    def at(steps_: int) -> Drift:
        wanted = drift.as_role(drift.at(made, steps_), scratch=made.migrator, migrator=who)
        return Drift(made, wanted, live, steps_, cross, roles, ignored, apart=apart)

    first = at(own)
    if all(row in past.revisions for row in table.rows) and table.rows:
        return first
    return at(first.best.steps) if first.best else first


def _in_words(made: Expected, compared: Drift, table: VersionTable, past: History) -> str:
    """What the live catalog is compared with."""
    how = f", replayed on PostgreSQL {made.server_version}" + (
        " (kept from before)" if made.cached else f" in {made.seconds:.1f} s"
    )
    if compared.apart:
        how += f" (left out: {', '.join(sorted(compared.apart))}, where another version table is)"
    if table.rows and all(row in past.revisions for row in table.rows):
        return f"what the history makes up to {', '.join(table.rows)}{how}"
    ran = [step.place.revision for step in made.steps[: compared.at]]
    return f"what the history makes up to {ran[-1] if ran else 'nothing'}, which it fits best{how}"


def _other(target: Target, run_id: str) -> tuple[dict[tuple[str, str], str], pd.DataFrame, int]:
    with target.reading(run_id) as conn:
        return (
            catalog.facets(catalog.snapshot(conn)),
            queries.frame(conn, "environment_mismatch/server"),
            queries.version_num(conn),
        )


def _edits(past: History, compared: Drift) -> tuple[Edit, ...]:
    """Of the revisions that differences belong to: was the file changed after it came?"""
    concerned = dict.fromkeys(
        one.revision for one in compared.differences if one.revision and one.attribution != drift.PENDING
    )
    found = [_edited(past, revision) for revision in list(concerned)[:_MOST_FILES]]
    return tuple(edit for edit in found if edit)


def _edited(past: History, revision: str) -> Edit | None:
    path = past.revisions[revision].path
    log = _git(path, "log", "--follow", "--format=%h of %cs", "--", path.name).splitlines()
    dirty = _git(path, "status", "--porcelain", "--", path.name).strip()
    says = [f"changed in {', '.join(log[:-1][:5])} after it came in {log[-1]}"] if len(log) > 1 else []
    says += ["changed and not committed"] if dirty and log else []
    return Edit(revision, path.name, "; ".join(says)) if says else None


def _git(path: Path, *arguments: str) -> str:
    """What git says of a file's past; '' where it cannot say."""
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(path.parent), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _obstacles(site: Site, compared: Drift) -> dict[str, str]:
    """Of the constraints that are missing: those that rows stand in the way of, with the runbook for them."""
    wanted = [
        one
        for one in compared.differences
        if one.kind in ("constraint", "index", "not_null") and one.expected is not None
    ]
    found = {}
    for one in wanted[:_MOST_ASKED]:
        asked = violations.obstacle(Change(one.kind, one.identity, one.live, one.expected), compared.live)
        table = halfway.relation_of(Change(one.kind, one.identity, None, one.expected))
        if asked is None or ("table", table) not in compared.live:
            continue
        try:
            with site.target.reading(site.run_id) as conn:
                if conn.exec_driver_sql(asked.sql.replace("%", "%%")).fetchall():
                    found[one.name] = f"{asked.says}: mend that first ({parameters.pointer(asked.slug)})"
        except MendError as error:
            found[one.name] = f"whether rows stand in its way is not known: {error.message.split('. ')[0]}"
    return found


def _sizes(site: Site, compared: Drift) -> dict[str, weights.Size]:
    """Sizes of the tables whose rows an operation that never ran would change."""
    wanted = {weights.table_changed(s.sql) for n in compared.never_ran for s in compared.expected.steps[n].statements}
    wanted |= {
        weights.table_changed(s.sql)
        for step in compared.expected.steps
        for s in step.statements
        if s.data and not s.changes
    }
    with site.target.reading(site.run_id) as conn:
        found = queries.frame(conn, "target/sizes", relations=sorted(wanted - {""}))
    return {
        str(row["relation"]): weights.Size(int(row["rows_estimate"]), int(row["size_bytes"]))
        for row in found.to_dict("records")
    }

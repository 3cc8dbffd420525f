"""A broken or forked history beside one database: its graph, the version rows, what git still has, what the branches do to each other.

`look` reads; everything else is pure.  The ways out are in `conflict_ways`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from mend.conflict import branches, revision_files
from mend.conflict.branches import Ground, Meeting
from mend.conflict.revision_files import Draft
from mend.conflict.walks import Walker
from mend.database import catalog, holders, queries, target
from mend.diagnosis import Site
from mend.errors import MendError
from mend.histories import git, graph, history
from mend.histories.history import History
from mend.histories.project import Environment, Project
from mend.histories.revisions import Revision
from mend.journal import sha256
from mend.repairs import halfway
from mend.repairs.steps import Facets
from mend.repairs.versions import VersionTable
from mend.replays import scratch

CONFIGURED, SISTER, FOREIGN = "the configured table", "another table of this project", "of another project"
UNKNOWN, ANCESTOR, TWICE = "unknown to the files", "an ancestor of another row", "there twice"
STRANGE = (UNKNOWN, ANCESTOR, TWICE)
_NEAR = 12  # newest revisions whose catalog is compared with the live one, where no other candidate is known


@dataclass(frozen=True)
class Elsewhere:
    """A further database that the operator named: its version rows, or why they are not known."""

    target: str
    rows: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Fork:
    """Heads to be joined: the merge revision as it would be written (None: it is there), and how the branches meet."""

    heads: tuple[str, ...]
    end: str
    draft: Draft | MendError | None
    meeting: Meeting | MendError


@dataclass(frozen=True)
class Facts:
    """Everything that a plan is made from."""

    past: History
    project: Project
    environment: Environment | MendError
    table: VersionTable
    version_rows: pd.DataFrame
    tables: pd.DataFrame
    version_sql: str
    live: Facets
    groups: tuple[tuple[str, ...], ...]
    fork: Fork | None
    kept: git.Answer
    elsewhere: tuple[Elsewhere, ...]
    expected: Mapping[str, Facets] | MendError
    said: Mapping[str, str]
    last_run: str

    @cached_property
    def applied(self) -> set[str]:
        """What the configured table's rows stand for."""
        return self.past.ancestors(self.table.rows)

    def rows_that_are(self, position: str) -> tuple[str, ...]:
        """Version rows of the configured table in that position."""
        found = self.version_rows
        mine = found[(found["table_is"] == CONFIGURED) & (found["position"] == position)]
        return tuple(dict.fromkeys(mine["version_num"]))

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Revision ids that are needed and have no file: parents, dependencies, version rows."""
        parents = {p for lacking in self.past.missing_parents.values() for p in lacking}
        return tuple(sorted(parents | set(self.rows_that_are(UNKNOWN))))

    @property
    def width(self) -> int:
        """Characters that an id may have in the version table."""
        found = self.tables
        mine = found[(found["schema"] == self.table.schema) & (found["table"] == self.table.name)]["width"]
        if not len(mine):
            return history.ID_LENGTH
        return 10_000 if pd.isna(mine.iloc[0]) else int(mine.iloc[0])

    @property
    def too_long(self) -> tuple[str, ...]:
        """Ids that the version table cannot hold."""
        return tuple(sorted(one for one in self.past.revisions if len(one) > self.width))

    @cached_property
    def reused(self) -> tuple[git.Kept, ...]:
        """Deleted files whose id another file has now, with another content: a database may have had the former."""
        found = []
        for one in self.kept.kept:
            now = self.past.revisions.get(one.revision.id)
            if now and not now.problem and now.path != one.revision.path and not one.moved and not _same(now, one):
                found.append(one)
        return tuple(found)

    def holders_of(self, revisions: Sequence[str]) -> tuple[str, ...]:
        """Who has one of these revisions, or cannot be asked: in words."""
        found = []
        if set(revisions) & self.applied:
            found.append("this database")
        for one in self.elsewhere:
            unknown = [row for row in one.rows if row not in self.past.revisions]
            if one.why or unknown:
                found.append(f"{one.target} (cannot tell: {one.why or 'unknown row ' + ', '.join(unknown)})")
            elif set(revisions) & self.past.ancestors(one.rows):
                found.append(one.target)
        return tuple(found)

    @property
    def pictures(self) -> dict[str, graph.Picture]:
        """What is drawn beside a check."""
        return {"graph": graph.picture(self.past, self.table.rows)}

    def tables_frame(self) -> list[dict[str, Any]]:
        """The graph as rows."""
        return [{str(k): v for k, v in row.items()} for row in graph.frame(self.past).to_dict("records")]


def _same(now: Revision, kept: git.Kept) -> bool:
    try:
        return git.does_the_same(now.path.read_text(encoding="utf-8"), kept.text)
    except (OSError, UnicodeDecodeError):
        return False


def look(site: Site, project: Project, said: Mapping[str, str]) -> Facts:
    """Read the project, the target and git; walk the branches in scratch.

    Raises: ProjectBroken, PrivilegeMissing, QueryFailed.
    """
    past = history.read(project.alembic_ini, python=project.python)
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(halfway.probed, project)
        elsewhere = tuple(_elsewhere(name) for name in _listed(said.get("also", "")))
        environ = asked.result()
    configured = environ.version_table if isinstance(environ, Environment) else "alembic_version"
    with holders.named(site.target, site.run_id), site.target.reading(site.run_id) as conn:
        tables = history.version_tables(conn, configured=configured)
        found = history.version_rows(conn, configured=configured)
        keys = queries.frame(conn, "migration_conflict/version_tables", configured=configured)
        live = catalog.facets(catalog.snapshot(conn))
        roles = tuple(queries.frame(conn, "target/roles")["role"])
    table = halfway.version_table(environ, tables, found)
    rows = _placed(found, table, past)
    server = scratch.choose(site.target, version_num=site.identity.version_num, roles=roles)
    ground = Ground(server, site.target.conninfo, table.rows)
    wanted = _wanted(past, rows)
    kept = git.look(past.version_locations, wanted)
    groups = graph.apart_by_accident(past)
    fork = _fork(site, project, past, groups, table.rows, ground, said)
    return Facts(
        past=past,
        project=project,
        environment=environ,
        table=table,
        version_rows=rows,
        tables=keys,
        version_sql=tables.attrs["sql"],
        live=live,
        groups=groups,
        fork=fork,
        kept=kept,
        elsewhere=elsewhere,
        expected=_expected(site, project, past, table, rows, kept, ground, said),
        said=said,
        last_run=site.last_run,
    )


def _wanted(past: History, rows: pd.DataFrame) -> set[str]:
    parents = {p for lacking in past.missing_parents.values() for p in lacking}
    mine = rows[(rows["table_is"] != FOREIGN) & (rows["position"] == UNKNOWN)]
    return parents | set(mine["version_num"])


def _listed(text: str) -> list[str]:
    return [part for part in (piece.strip() for piece in text.split(",")) if part]


def _elsewhere(name: str) -> Elsewhere:
    """Ask a further database, read-only."""
    try:
        with target.resolve(name).reading() as conn:
            found = history.version_rows(conn)
    except MendError as error:
        return Elsewhere(name, why=error.message.split(". ")[0])
    return Elsewhere(name, tuple(sorted(set(found["version_num"]))))


def _placed(rows: pd.DataFrame, table: VersionTable, past: History) -> pd.DataFrame:
    """Every version row with what its table is, and where in the graph the row stands."""
    frame = rows.copy()
    own: dict[tuple[str, str], list[str]] = {}
    for row in rows.itertuples():
        own.setdefault((str(row.schema), str(row.table)), []).append(str(row.version_num))
    kinds = {key: _table_is(key, ids, table, past) for key, ids in own.items()}
    keys = list(zip(rows["schema"], rows["table"], strict=True))
    frame["table_is"] = [kinds[key] for key in keys]
    frame["position"] = [
        _position(one, own[key], past) if kinds[key] != FOREIGN else ""
        for one, key in zip(rows["version_num"], keys, strict=True)
    ]
    return frame.astype({"table_is": "str", "position": "str"})


def _table_is(key: tuple[str, str], ids: Sequence[str], table: VersionTable, past: History) -> str:
    if key == (table.schema, table.name):
        return CONFIGURED
    return SISTER if any(one in past.revisions for one in ids) else FOREIGN


def _position(row: str, rows: Sequence[str], past: History) -> str:
    if rows.count(row) > 1:
        return TWICE
    if row not in past.revisions:
        return UNKNOWN
    if row in past.ancestors([one for one in rows if one != row]):
        return ANCESTOR
    return "head" if row in past.heads else f"behind by {len(history.pending(past, [row]))}"


def _fork(
    site: Site,
    project: Project,
    past: History,
    groups: Sequence[tuple[str, ...]],
    rows: Sequence[str],
    ground: Ground,
    said: Mapping[str, str],
) -> Fork | None:
    """The heads that are to be joined, or a merge that this database has not had; None where there is neither."""
    if past.missing_parents or past.cycles or past.duplicates:
        return None  # alembic cannot load it: mend that first
    named = tuple(one for one in _listed(said.get("revision", "")) if one in past.heads)
    heads = named if len(named) > 1 else next(iter(groups), ())
    if heads:
        draft = _draft(project, past, heads, site.last_run, said.get("message", ""))
        if isinstance(draft, MendError):
            return Fork(heads, "", draft, draft)
        then = history.with_files(past, {draft.path: draft.text})
        (end,) = [one.id for one in then.files if one.path == draft.path]
        walker = Walker(project, past, {str(draft.path): draft.text})
        return Fork(heads, end, draft, _meeting(site, walker, then, heads, end, ground))
    applied = past.ancestors(rows)
    pending = [one for one in past.heads if len(past.revisions[one].down) > 1 and one not in applied]
    if pending:
        down = past.parents(pending[0])
        return Fork(down, pending[0], None, _meeting(site, Walker(project, past), past, down, pending[0], ground))
    return None


def _draft(project: Project, past: History, heads: Sequence[str], last_run: str, message: str) -> Draft | MendError:
    try:
        return revision_files.draft(
            project,
            past,
            revision=new_id("merge", *heads, last_run),
            down=heads,
            message=message or f"merge {' and '.join(heads)}",
        )
    except MendError as error:
        return error


def new_id(*parts: str) -> str:
    """A revision id like alembic's own, the same for the same parts."""
    return sha256(" ".join(parts))[:12]


def _meeting(
    site: Site, walker: Walker, past: History, heads: Sequence[str], end: str, ground: Ground
) -> Meeting | MendError:
    site.progress(f"walking {len(heads)} branches in scratch")
    try:
        return branches.meet(walker, past, heads, end=end, ground=ground)
    except MendError as error:
        return error


def _expected(
    site: Site,
    project: Project,
    past: History,
    table: VersionTable,
    rows: pd.DataFrame,
    kept: git.Answer,
    ground: Ground,
    said: Mapping[str, str],
) -> Mapping[str, Facets] | MendError:
    """What a replay expects at the revisions that a strange version row may be set to, or stands beside."""
    mine = rows[rows["table_is"] == CONFIGURED]
    strange = mine[mine["position"].isin(STRANGE)]
    if past.missing_parents or past.cycles or past.duplicates or strange.empty:
        return {}
    candidates = [one for row in dict.fromkeys(strange["version_num"]) for one in near(past, row, kept, said)]
    known = [one for one in table.rows if one in past.revisions]
    wanted = {*candidates, *known} if any(strange["position"] != TWICE) else set()
    stops = [one for one in past.ordered() if one in wanted]
    if not stops:
        return {}
    site.progress("replaying the history in scratch")
    try:
        return branches.expected(Walker(project, past), stops, ground=ground)
    except MendError as error:
        return error


def near(past: History, row: str, kept: git.Answer, said: Mapping[str, str]) -> tuple[str, ...]:
    """Known revisions at which a database with this unknown row may really be: the named one, what git says, else the newest."""
    if row in past.revisions:
        return ()
    onto = past.named(said.get("onto", ""))
    if onto:
        return (onto,)
    found, seen = kept.of(row), {row}
    while found:
        known = [p for p in found.revision.down if p in past.revisions]
        if known:
            return tuple(known)
        above = next((p for p in found.revision.down if p not in seen), "")
        seen.add(above)
        found = kept.of(above)
    return past.ordered()[-_NEAR:]


def lacks(facts: Facts, revision: str) -> tuple[str, ...] | None:
    """How the live catalog differs from what is expected at a revision, in words; None where that is not known."""
    if isinstance(facts.expected, MendError) or revision not in facts.expected:
        return None
    found = branches.lacking(facts.expected[revision], facts.live, ignore=facts.table.name)
    return tuple(f"{c.kind} {c.identity}: expected {c.before or 'none'}, found {c.after or 'none'}" for c in found)


def evidence(facts: Facts) -> dict[str, Any]:
    """What a plan's digest covers: version rows everywhere, the graph, and the catalog where a version row is to be changed."""
    strange = any(facts.rows_that_are(one) for one in STRANGE)
    rows = facts.version_rows
    return {
        "version_rows": {f"{r.schema}.{r.table} {r.version_num}": r.position for r in rows.itertuples()},
        "revisions": {
            f"{one.id} ({one.path.name})": ", ".join((*one.down, *one.depends_on)) or "(none)"
            for one in facts.past.files
        },
        "elsewhere": {one.target: one.why or ", ".join(one.rows) for one in facts.elsewhere},
        "objects": {f"{kind} {name}": text for (kind, name), text in sorted(facts.live.items())} if strange else {},
    }

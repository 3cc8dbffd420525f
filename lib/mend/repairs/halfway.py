"""How far one revision got in one database: its statements, as replay recorded them, each with its state in the live catalog.

`look` reads; everything else is pure.  What to do about it is in `ways`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from mend.change import ddl, weights
from mend.change.kept import Keeping
from mend.database import catalog, holders, names, queries
from mend.database.catalog import Change
from mend.database.target import Identity
from mend.diagnosis import Site
from mend.errors import InvalidParameter, MendError, ProjectBroken
from mend.histories import history
from mend.histories.history import History
from mend.histories.lint import lint_files
from mend.histories.project import Environment, Project, environment
from mend.histories.revisions import Revision
from mend.journal import sha256
from mend.repairs import steps, violations
from mend.repairs.steps import Facets, Keeper
from mend.repairs.versions import VersionTable
from mend.replays import compare, replay, scratch
from mend.replays.replay import Replay

_UNREADABLE = ("syntax error", "not UTF-8", "merge conflict", "cannot be read")
OPERATIONS = ["revision", "index", "operation", "objects", "state", "detail"]
_PATH_ENTRY = re.compile(r'"(?:[^"]|"")+"|[^",\s]+')
NOTHING = Replay("history", "", None, (), (), None, True, True, (), "", 0.0)


@dataclass(frozen=True)
class Seen:
    """One recorded statement and its state: DONE, NOT_DONE, DIFFERENT or DATA; ``ran`` is None where nobody can tell.

    ``inferred``: that a change of rows ran is concluded from the objects around it, and told by nobody.  ``keeps``: how the rows
    that it changes are to be kept, where somebody has prepared that.
    """

    statement: replay.Statement
    state: str
    detail: str
    ran: bool | None
    inferred: bool = False
    keeps: tuple[Keeping, ...] = ()


@dataclass(frozen=True)
class Facts:
    """Everything that a plan is made from."""

    past: History
    project: Project
    revision: Revision | None
    table: VersionTable
    version_rows: pd.DataFrame
    version_sql: str
    environment: Environment | MendError
    replayed: Replay
    seen: tuple[Seen, ...]
    operations: pd.DataFrame
    live: Facets
    keeper: Keeper
    rows_said: str
    sizes: Mapping[str, weights.Size]

    @property
    def stamped(self) -> bool:
        """Whether the version rows say that the revision is applied."""
        return self.revision is not None and self.revision.id in self.past.ancestors(self.table.rows)

    @property
    def lost_silently(self) -> bool:
        """Whether a retry would report success and be rolled back: env.py runs SQL before context.configure() (facts 1.1)."""
        external = isinstance(self.environment, Environment) and self.environment.in_external_transaction
        return external or self.replayed.persisted is False

    @property
    def loses_stamp(self) -> bool:
        """Whether running upgrade() loses its own version row: it commits by itself (facts 1.1)."""
        findings = lint_files(self.past.env_py, [self.revision.path]) if self.revision else []
        commits = any(finding in ("commit", "commit_text") for _, _, finding, _ in findings)
        return commits or self.replayed.stamped is False

    def complete(self) -> bool:
        """Every statement ran; of a revision that failed in scratch, not every statement is known."""
        return not self.replayed.error and all(one.ran is True for one in self.seen)

    def untouched(self) -> bool:
        """No statement ran, and nothing of it is there."""
        return all(one.ran is False and one.state != "DIFFERENT" for one in self.seen)

    def finishes_itself(self) -> bool:
        """All that is there was sent by mend.migrations, which goes on from there when the revision is run again."""
        there = [one for one in self.seen if one.ran is not False or one.state == "DIFFERENT"]
        return not self.replayed.error and all(one.statement.finishes for one in there)

    def changes(self) -> tuple[Change, ...]:
        """What the whole revision changes: first state to last of every object."""
        return steps.net(change for one in self.seen for change in one.statement.changes)

    def touched(self) -> set[str]:
        """Identities of the objects that the revision touches."""
        return {change.identity for one in self.seen for change in one.statement.changes}

    def tables_touched(self) -> set[str]:
        """Qualified, quoted names of the relations that the revision touches."""
        return {relation_of(change) for one in self.seen for change in one.statement.changes} - {""}

    def obstacles(self) -> list[violations.Obstacle]:
        """The questions whose answers must be empty before what is missing can be made."""
        wanted = [change for one in self.seen if one.ran is not True for change in one.statement.changes]
        known = {(kind, identity) for kind, identity in self.live}
        made = {names.last(change.identity) for change in self.changes() if change.kind == "column"}
        asked = [
            violations.obstacle(c, self.live)
            for c in wanted
            if ("table", relation_of(c)) in known and _columns_are_there(c, self.live, made)
        ]
        return [o for o in asked if o is not None]

    def operation_sql(self) -> str:
        """Every statement of the revision, in order."""
        return "\n".join(
            f"-- operation {one.statement.operation}: {one.state}\n{one.statement.sql};" for one in self.seen
        )

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """What else the journal keeps."""
        return {"operations": [{str(k): v for k, v in row.items()} for row in self.operations.to_dict("records")]}


def relation_of(change: Change) -> str:
    """The table, view or index's table that a change is about; '' for types, functions, schemas."""
    if change.kind in ("table", "view", "matview", "sequence"):
        return change.identity
    if change.kind == "index":
        return ddl.index_table(change.after or change.before or "")
    if change.kind in (
        "column",
        "default",
        "not_null",
        "constraint",
        "trigger",
        "policy",
        "rule",
        "partition",
        "inherits",
    ):
        return names.parent(change.identity) if change.kind not in ("partition", "inherits") else change.identity
    return ""


def _columns_are_there(change: Change, live: Facets, made: set[str]) -> bool:
    """Whether a wanted constraint is about columns that exist already; on those that are yet to be ``made`` no row can stand in its way."""
    table = relation_of(change)
    present = {names.last(identity) for kind, identity in live if kind == "column" and names.parent(identity) == table}
    if change.kind == "not_null":
        return names.last(change.identity) in present
    columns = made | {names.last(identity) for kind, identity in live if kind == "column"}
    mentioned = {word for word in names.mentions(change.after or "") if word in columns}
    return mentioned <= present


def same_database(identity: Identity, found: Environment) -> bool:
    """Whether env.py leads to the target: same cluster and database."""
    if found.system_identifier is None:
        return False
    return (found.system_identifier, found.database, found.database_oid) == (
        identity.system_identifier,
        identity.database,
        identity.database_oid,
    )


def look(site: Site, project: Project, *, revision: str, data_operations: str) -> Facts:
    """Read the project and the target, replay, compare.

    Raises: ProjectBroken, RevisionNotFound, ReplayFailed, PrivilegeMissing.
    """
    said = said_of_rows(data_operations)
    past = history.read(project.alembic_ini, python=project.python)
    if unreadable := [one for one in past.broken if one.problem.startswith(_UNREADABLE)]:
        raise ProjectBroken(
            f"{unreadable[0].path}: {unreadable[0].problem}. Nothing was changed. Repair the file and run again."
        )
    with ThreadPoolExecutor(1) as beside:  # env.py takes as long as its imports; the replay need not wait for it
        asked = beside.submit(probed, project)
        with holders.named(site.target, site.run_id), site.target.reading(site.run_id) as conn:
            tables = history.version_tables(conn)
            found = history.version_rows(conn)
            live = catalog.snapshot(conn)
            roles = tuple(queries.frame(conn, "target/roles")["role"])
        server = scratch.choose(site.target, version_num=site.identity.version_num, roles=roles)
        # Of several version tables env.py says which one counts; one alone needs not wait for it.
        rows = version_table(asked.result(), tables, found).rows if len(tables) > 1 else found["version_num"]
        chosen = _choose(_Comparer(site, project, past, server, live), set(rows), revision)
        environ = asked.result()
    if chosen is None and past.broken:
        raise ProjectBroken(
            f"{past.broken[0].path}: {past.broken[0].problem}. Nothing was changed. Repair the file and run again."
        )
    table = version_table(environ, tables, found)
    replayed, seen, operations = chosen[1:] if chosen else (NOTHING, (), pd.DataFrame(columns=OPERATIONS))
    now = catalog.facets(live)
    keeper = Keeper(
        site.target.settings.schema_name,
        sha256(f"{chosen[0].id if chosen else ''} {site.last_run}")[:16],
        steps.primary_keys(now),
    )
    return Facts(
        past=past,
        project=project,
        revision=chosen[0] if chosen else None,
        table=table,
        version_rows=placed(found, table, past),
        version_sql=tables.attrs["sql"],
        environment=environ,
        replayed=replayed,
        seen=tuple(_told(one, said) for one in seen),
        operations=operations,
        live=now,
        keeper=keeper,
        rows_said=said.get(0, ""),
        sizes=_sizes(site, seen),
    )


def _sizes(site: Site, seen: Sequence[Seen]) -> dict[str, weights.Size]:
    """Sizes of the tables that the revision touches, or whose rows it changes."""
    relations = {relation_of(change) for one in seen for change in one.statement.changes}
    relations |= {weights.table_changed(one.statement.sql) for one in seen}
    with site.target.reading(site.run_id) as conn:
        frame = queries.frame(conn, "target/sizes", relations=sorted(relations - {""}))
    return {
        str(row["relation"]): weights.Size(int(row["rows_estimate"]), int(row["size_bytes"]))
        for row in frame.to_dict("records")
    }


def probed(project: Project) -> Environment | MendError:
    """Where env.py leads and how it configures alembic, or why that is not known."""
    try:
        return environment(project)
    except MendError as error:
        return error


Found = tuple[Revision, Replay, tuple[Seen, ...], pd.DataFrame]


@dataclass(frozen=True)
class _Comparer:
    """Replays a revision and compares it with the live catalog."""

    site: Site
    project: Project
    past: History
    server: scratch.Scratch
    live: pd.DataFrame

    def compared(self, revision: Revision) -> Found:
        """One revision: its replay, its statements' states, its operations' states."""
        own = self.site.target.settings
        replayed = replay.replay(
            self.project,
            revision.id,
            scratch=self.server,
            live=self.site.target.conninfo,
            base=own.base,
            base_revision=own.base_revision,
            progress=lambda done, total, text: self.site.progress(f"{text} ({done} of {total})"),
        )
        frame = compare.compare(replayed, self.live, live_major=self.site.identity.version_num // 10000)
        rows = zip(replayed.statements, frame.to_dict("records"), strict=True)
        seen = tuple(
            Seen(
                one,
                row["state"],
                row["detail"],
                ran := None if pd.isna(row["ran"]) else bool(row["ran"]),
                row["state"] == "DATA" and ran is True,
            )
            for one, row in rows
        )
        return revision, replayed, seen, compare.operations(frame)


def _choose(comparer: _Comparer, rows: set[str], revision: str) -> Found | None:
    """The revision in question: the named one, else the next pending one that has begun, else the next."""
    past = comparer.past
    if revision:
        return comparer.compared(past.get(revision))
    applied = past.ancestors(rows)
    waiting = [past.revisions[one] for one in history.pending(past, rows)]
    found = None
    for one in waiting:
        if not set(past.parents(one.id)) <= applied:
            continue
        compared = comparer.compared(one)
        if any(seen.ran is not False for seen in compared[2]):
            return compared
        found = found or compared
    return found


def said_of_rows(data_operations: str) -> dict[int, str]:
    """What the operator says of row changes: ``ran`` or ``not_run`` of all (key 0), or ``3:ran,5:not_run`` by operation.

    Raises: InvalidParameter.

    >>> said_of_rows("ran"), said_of_rows("3:ran, 5:not_run")
    ({0: 'ran'}, {3: 'ran', 5: 'not_run'})
    """
    found = {}
    for part in filter(None, (piece.strip() for piece in data_operations.split(","))):
        operation, _, word = part.rpartition(":")
        if word not in ("ran", "not_run") or not (operation or "0").strip().isdigit():
            raise InvalidParameter(
                f"data_operations is {data_operations!r}. Nothing was changed. Write ran, not_run, or one of them for each operation: 3:ran,5:not_run."
            )
        found[int(operation or 0)] = word
    return found


def _told(one: Seen, said: Mapping[int, str]) -> Seen:
    """A row change that the catalog cannot show, with what the operator says of it.

    Said of an operation by number, it counts most; said of all, it settles what is open and confirms what was concluded, but
    does not contradict a conclusion.
    """
    of_all = said.get(0) if one.ran is None or (one.inferred and said.get(0) == "ran") else None
    word = said.get(one.statement.operation) or of_all
    if one.state == "DATA" and word:
        return replace(one, ran=word == "ran", detail=f"the operator says: {word}", inferred=False)
    return one


def version_table(environ: Environment | MendError, tables: pd.DataFrame, rows: pd.DataFrame) -> VersionTable:
    """The version table that env.py configures; without a schema, the one that its search_path finds first."""
    name, schema = (
        ("alembic_version", None)
        if isinstance(environ, MendError)
        else (environ.version_table, environ.version_table_schema)
    )
    schema = schema or _found_first(environ, set(tables[tables["table"] == name]["schema"]))
    present = rows[(rows["schema"] == schema) & (rows["table"] == name)]["version_num"]
    exists = bool(((tables["schema"] == schema) & (tables["table"] == name)).any())
    return VersionTable(schema, name, tuple(sorted(present)), exists)


def _found_first(environ: Environment | MendError, schemas: set[str]) -> str:
    """The first of these schemas on env.py's search_path; with none of them on it, the one where a new table would go."""
    path, role = ("public", "") if isinstance(environ, MendError) else (environ.search_path, environ.role)
    entries = [
        entry[1:-1].replace('""', '"') if entry.startswith('"') else entry for entry in _PATH_ENTRY.findall(path)
    ]
    named = [role if entry == "$user" else entry for entry in entries]
    return next((one for one in named if one in schemas), next((one for one in named if one != role), "public"))


def placed(rows: pd.DataFrame, table: VersionTable, past: History) -> pd.DataFrame:
    """The version rows with what each of them is."""
    frame = rows.copy()
    frame["position"] = [_position(row, table, past) for row in rows.itertuples()]
    return frame


def _position(row: Any, table: VersionTable, past: History) -> str:
    if (row.schema, row.table) != (table.schema, table.name):
        return "not the configured table"
    if row.version_num not in past.revisions:
        return "unknown to the files"
    others = [one for one in table.rows if one != row.version_num]
    if row.version_num in past.ancestors(others):
        return "an ancestor of another row"
    return "head" if row.version_num in past.heads else f"behind by {len(history.pending(past, [row.version_num]))}"


def evidence(facts: Facts) -> dict[str, Any]:
    """What a plan's digest covers: the version rows, the revision's file, and every object of the tables that the history knows."""
    base = facts.replayed.base
    known = {row.identity for row in base.itertuples() if row.kind == "table"} if base is not None else None
    touched = facts.touched() | facts.tables_touched()

    def concerns(kind: str, identity: str, definition: str) -> bool:
        relation = relation_of(Change(kind, identity, None, definition))
        return known is None or identity in touched or relation in touched or relation in known

    return {
        "revision": facts.revision.id if facts.revision else None,
        "version_rows": dict.fromkeys(facts.table.rows, "present"),
        "files": {facts.revision.path.name: sha256(facts.revision.path.read_bytes())} if facts.revision else {},
        "objects": {
            f"{kind} {identity}": text
            for (kind, identity), text in sorted(facts.live.items())
            if concerns(kind, identity, text)
        },
        "data_operations": {str(n): str(one.ran) for n, one in enumerate(facts.seen) if one.state == "DATA"},
    }

"""What a revision does, statement by statement: recorded while the user's own history runs in a scratch database.

Two ways.  ``history``: every revision up to this one is run from an empty database.  ``trial``, for histories that cannot
start from nothing: the revision is tried on a copy of the live schema, and what it finds there already is made afresh.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from mend.database.catalog import SNAPSHOT_SQL, Change
from mend.errors import ReplayFailed
from mend.histories.history import History, read
from mend.histories.project import Event, Project, ask, broken
from mend.replays.compare import compare, operations
from mend.replays.recording import Replay, Statement
from mend.replays.replay_cache import Kept
from mend.replays.scratch import Scratch, copy_schema, load

__all__ = ["Replay", "Scratch", "Statement", "compare", "operations", "replay"]

Progress = Callable[[int, int, str], None]
MISSING_BEFOREHAND = {
    "3F000",
    "42704",
    "42883",
}  # a schema, a type or a function that a DBA made before the first revision
TRIED = "the revision was tried on a copy of the live schema: states of objects are compared, but not with a history"
LOOKS = "upgrade() looks at the catalog before it acts: operations that it skips on this database are not listed"
PREPARED = """
select format('create schema if not exists %I', nspname) from pg_catalog.pg_namespace as n
 where nspname !~ '^pg_' and nspname <> 'information_schema' and coalesce(obj_description(n.oid, 'pg_namespace'), '') not like 'mend:%'
union all
select format('create extension if not exists %I with schema %I cascade', extname, nspname)
  from pg_catalog.pg_extension as e join pg_catalog.pg_namespace as n on n.oid = e.extnamespace where extname <> 'plpgsql'"""


def replay(
    project: Project,
    revision: str,
    *,
    scratch: Scratch,
    live: Mapping[str, str] | None = None,
    base: Path | None = None,
    base_revision: str = "",
    progress: Progress | None = None,
    timeout_s: float = 900,
) -> Replay:
    """Record what one revision does.

    Parameters
    ----------
    project : the user's project
    revision : id, label or unambiguous beginning of an id
    scratch : where to run it; started only when the answer is not in the cache
    live : libpq keywords of the live database, for the trial; it is read only, by pg_dump
    base, base_revision : a plain SQL dump to start from, and the revision that it is at
    progress : called with (done, total, text)
    timeout_s : seconds for each run of the project's code

    Returns
    -------
    Replay; ``.method`` says which way was taken and ``.warnings`` how sure it is

    Reads: the live schema (trial only).  Writes: scratch databases and the cache.
    Raises: RevisionNotFound, ProjectBroken, ScratchUnavailable, ReplayFailed.
    """
    started = time.monotonic()
    history = read(project.alembic_ini, python=project.python)
    revision = history.get(revision).id
    kept = Kept(project, history, revision, scratch, base)
    found = kept.load()
    if found:
        return replace(found, seconds=time.monotonic() - started, cached=True)
    with scratch:
        run = _Run(project, history, revision, scratch, kept, progress or (lambda done, total, text: None), timeout_s)
        made, modules = run.any_way(live, base, base_revision)
    made = replace(made, seconds=time.monotonic() - started)
    if made.method == "history" and made.error is None:
        kept.save(made, modules)
    return made


@dataclass(frozen=True)
class _Run:
    project: Project
    history: History
    revision: str
    scratch: Scratch
    kept: Kept
    progress: Progress
    timeout_s: float

    def any_way(
        self, live: Mapping[str, str] | None, base: Path | None, base_revision: str
    ) -> tuple[Replay, list[Any]]:
        """From the base that was named, else from nothing, else from the live database's schemas and extensions, else by trial."""
        failure = self.kept.load_failure() if live else None
        events = [failure] if failure else self._from_base(base, base_revision) if base else self._from_nothing(())
        if _reached(events):
            return self._replay("history", events, [f"started from the dump {base} at {base_revision}"] if base else [])
        error = events[-1]
        if live and not base and error.get("sqlstate") in MISSING_BEFOREHAND:
            prepared = self._prepared(live)
            again = self._from_nothing(prepared)
            if _reached(again):
                return self._replay(
                    "history", again, ["schemas and extensions of the live database were made beforehand"]
                )
        if error["event"] != "error" or live is None:
            raise self._failed(error)
        self.kept.save_failure(error)
        why = f"the history does not run from an empty database: {error.get('revision') or 'env.py'}: {error['kind']} {_first_line(error['message'])}".strip()
        trial = self._trial(live)
        if not _reached(trial):
            raise self._failed(trial[-1])
        return self._replay("trial", trial, [why, TRIED])

    def _from_nothing(self, prepared: tuple[str, ...]) -> list[Event]:
        with self.scratch.database() as place:
            if prepared:
                with psycopg.connect(**place, autocommit=True) as conn:  # type: ignore[arg-type]
                    for statement in prepared:
                        _try(conn, statement)
            return self._ask("replay", place)

    def _from_base(self, base: Path, base_revision: str) -> list[Event]:
        with self.scratch.database() as place:
            load(base.read_text(encoding="utf-8"), place)
            return self._ask("replay", place, start=[self.history.get(base_revision).id] if base_revision else [])

    def _trial(self, live: Mapping[str, str]) -> list[Event]:
        with self.scratch.database() as place:
            self.progress(0, 1, "copying the live schema")
            copy_schema(live, place, major=self.scratch.major)
            return self._ask("trial", place)

    def _ask(self, action: str, place: Mapping[str, str], **more: Any) -> list[Event]:
        parents = [one for one in self.history.ordered() if one in self.history.parents(self.revision)]
        request = {
            "action": action,
            "revision": self.revision,
            "parents": parents,
            "snapshot_sql": SNAPSHOT_SQL,
            "scratch": dict(place),
            **more,
        }
        events = ask(self.project, request, timeout_s=self.timeout_s, on_event=self._show)
        return (
            [*events[:-1], {"event": "seen", **self._look(events, place)}, events[-1]] if _reached(events) else events
        )

    def _show(self, event: Event) -> None:
        if event["event"] == "revision":
            self.progress(event["number"], event["of"], f"replaying {event['revision']}")

    def _look(self, events: list[Event], place: Mapping[str, str]) -> Event:
        """What a new session sees after the run: the catalog and the version rows."""
        context = next(e for e in events if e["event"] == "context")
        with psycopg.connect(**place, autocommit=True) as conn:  # type: ignore[arg-type]
            rows = conn.execute(SNAPSHOT_SQL).fetchall()
            named = psycopg.sql.Identifier(*filter(None, [context["version_table_schema"], context["version_table"]]))
            there = conn.execute("select to_regclass(%s) is not null", [named.as_string(conn)]).fetchone()
            versions = (
                conn.execute(psycopg.sql.SQL("select version_num from {}").format(named)).fetchall()
                if there and there[0]
                else []
            )
        return {
            "rows": [list(row) for row in rows],
            "versions": [row[0] for row in versions],
            "table": context["version_table"],
        }

    def _prepared(self, live: Mapping[str, str]) -> tuple[str, ...]:
        try:
            options = f"{live.get('options', '')} -c default_transaction_read_only=on"
            with psycopg.connect(make_conninfo(**{**live, "options": options})) as conn:
                return tuple(row[0] for row in conn.execute(PREPARED))
        except psycopg.Error as error:
            raise ReplayFailed(
                f"The live database's schemas could not be read: {str(error).strip()}. Nothing was changed."
            ) from error

    def _failed(self, error: Event) -> Exception:
        """The error of a run that never came to the revision."""
        if error["event"] != "error":
            return ReplayFailed(
                f"alembic ran, but not revision {self.revision}: env.py runs no migrations from an empty database. The target was not "
                "touched. If env.py migrates several schemas, name a base with `base =` in mend.toml."
            )
        if not error["revision"]:
            return broken(error)
        return ReplayFailed(
            f"The history cannot be replayed: revision {error['revision']} fails in a scratch database: {error['kind']}: "
            f"{_first_line(error['message'])}. The target was not touched. Name a base with `base =` and `base_revision =` in mend.toml, or "
            "give the target so that a copy of its schema can be tried."
        )

    def _replay(self, method: str, events: list[Event], warnings: list[str]) -> tuple[Replay, list[Any]]:
        import pandas

        last = events[-1]
        recorded = next(e for e in events if e["event"] == "recorded")
        base = next(e["rows"] for e in events if e["event"] == "base")
        seen = next(e for e in events if e["event"] == "seen")
        statements = _statements(self.revision, [e for e in events if e["event"] == "statement"])
        error = (
            f"{last['kind']}: {_first_line(last['message'])}"
            + (f" (SQLSTATE {last['sqlstate']})" if last["sqlstate"] else "")
            if last["event"] == "error"
            else None
        )
        if error and last["sql"]:
            error = f"{error}, in: {last['sql']}"
        judged = method == "history" and not error
        warnings = [*warnings, LOOKS] if method == "trial" and recorded["looks"] else warnings
        persisted = _persisted(statements, seen["rows"])
        if judged and persisted:
            warnings = [*warnings, *_unrecorded(statements, base, seen)]
        made = Replay(
            method, self.revision, pandas.DataFrame(base, columns=["kind", "identity", "definition"], dtype="str"), statements,
            tuple(recorded["reads"]), error, (self.revision in seen["versions"]) if judged else None, persisted if judged else None,
            tuple(filter(None, [*warnings, *recorded["warnings"], self.scratch.warning])), self.scratch.version, 0.0,
        )  # fmt: skip
        return made, last.get("modules", [])


def _reached(events: list[Event]) -> bool:
    """Did the run come to the revision of interest?"""
    return any(e["event"] == "base" for e in events)


def _first_line(text: str) -> str:
    return (str(text).strip().splitlines() or [""])[0]


def _try(conn: psycopg.Connection[Any], statement: str) -> None:
    """One preparation; what this server cannot have (an extension) shows later, at the revision that needs it."""
    try:
        conn.execute(statement.encode())
    except psycopg.Error:
        return


def _statements(revision: str, events: list[Event]) -> tuple[Statement, ...]:
    made: list[Statement] = []
    operation = 0
    previous = None
    for e in events:
        operation += e["operation"] != previous  # what was rolled back leaves gaps
        previous = e["operation"]
        index = made[-1].index + 1 if made and made[-1].operation == operation else 1
        changes = tuple(Change(*change) for change in e["changes"])
        made.append(
            Statement(
                revision, operation, index, e["op"], e["says"], e["sql"], e["rendered"], e["autocommit"], e["segment"], changes,
                e["data"], e["search_path"], tuple(e["settings"]), e["verdict"], e["detail"],
                e["finishes"],
            )
        )  # fmt: skip
    return tuple(made)


def _final(statements: tuple[Statement, ...]) -> dict[tuple[str, str], str | None]:
    return {(c.kind, c.identity): c.after for one in statements for c in one.changes}


def _persisted(statements: tuple[Statement, ...], rows: list[list[str]]) -> bool:
    there = {(kind, identity): text for kind, identity, text in rows}
    return all(there.get(key) == after for key, after in _final(statements).items())


def _unrecorded(statements: tuple[Statement, ...], base: list[list[str]], seen: Event) -> list[str]:
    """What changed although no recorded statement did it: SQL sent past SQLAlchemy, on the driver's own cursor."""
    expected = {(kind, identity): text for kind, identity, text in base} | _final(statements)
    there = {(kind, identity): text for kind, identity, text in seen["rows"]}
    strange = sorted(
        key
        for key in expected.keys() | there.keys()
        if expected.get(key) != there.get(key) and seen["table"] not in key[1]
    )
    return (
        [f"changed by SQL that mend could not record: {', '.join(f'{k} {i}' for k, i in strange[:5])}"]
        if strange
        else []
    )

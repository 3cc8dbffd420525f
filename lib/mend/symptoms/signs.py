"""What a database and a script directory show by themselves, before anybody has reported an error.

Every question stands in a savepoint of its own: one that cannot be answered becomes a note, and the others are still asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mend.errors import MendError, QueryFailed, from_driver
from mend.symptoms import promises
from mend.symptoms.signatures import (
    CONFLICT,
    DEADLOCK,
    FAILED,
    FOREIGN,
    LOSS,
    MISMATCH,
    NOT_NULL,
    ROLLBACK,
    SLOW,
    UNIQUE,
)

if TYPE_CHECKING:
    from pandas import DataFrame
    from sqlalchemy import Connection

    from mend.histories.history import History

MIN_WAIT_S = 0.5  # shorter waits for a lock are everyday
MIN_WORK_S = 1.0  # and so are shorter transactions
_LONG_S = 60.0  # from here on a migration is slow whatever it does
_STAMP_LOSERS = {"sql_before_configure": 0.6, "commit": 0.5, "commit_text": 0.5}  # findings of lint
_PENDING_READ = 10  # pending revisions whose objects are looked for
_RECORDED_READ = 30  # recorded revisions whose objects are looked for, the latest
_Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Sign:
    """One thing that was seen and the failure mode that it speaks for; ``at`` is its place in a text."""

    slug: str
    confidence: float
    says: str
    parameters: dict[str, Any] = field(default_factory=dict)
    source: str = "database"
    at: int = 0
    sqlstate: str = ""


@dataclass(frozen=True)
class Seen:
    """The signs, and what could not be looked at."""

    signs: tuple[Sign, ...]
    could_not_check: tuple[str, ...] = ()


def of_files(history: History) -> list[Sign]:
    """What is wrong with the revision files alone."""
    signs = [
        _file_sign(0.9, f"the parent {name} of revision {child} has no file", name)
        for child, lacking in history.missing_parents.items()
        for name in lacking
    ]
    signs += [
        _file_sign(0.9, f"{len(paths)} files have the revision id {name}", name)
        for name, paths in history.duplicates.items()
    ]
    signs += (
        [_file_sign(0.9, f"revisions refer to each other in a circle: {', '.join(history.cycles)}")]
        if history.cycles
        else []
    )
    signs += [
        _file_sign(0.6, f"revision file {broken.path.name}: {broken.problem}", broken.id) for broken in history.broken
    ]
    if len(history.heads) > 1 and not signs:
        # labelled branches, dependencies and several roots are everyday in some projects; two plain heads are an accident
        meant = any(r.labels or r.depends_on for r in history.files) or sum(not r.down for r in history.files) > 1
        signs.append(
            _file_sign(0.35 if meant else 0.7, f"there are {len(history.heads)} heads: {', '.join(history.heads)}")
        )
    return signs


def _file_sign(confidence: float, says: str, revision: str = "") -> Sign:
    return Sign(CONFLICT, confidence, says, {"revision": revision} if revision else {}, "files")


def of_database(conn: Connection, history: History | None) -> Seen:
    """What the database shows, compared with the revision files where they are given."""
    questions: dict[str, Callable[[], list[Sign]]] = {
        "invalid indexes": lambda: _invalid_indexes(_ask(conn, "triage/invalid_indexes")),
        "constraints that are not validated": lambda: _not_valid(_ask(conn, "triage/not_valid_constraints")),
        "migrations at work": lambda: _at_work(
            _ask(conn, "triage/migrations_at_work", min_open_s=MIN_WORK_S), _next_pending(conn, history)
        ),
        "sessions waiting for locks": lambda: _with_roots(
            conn, _waiting(_ask(conn, "triage/waiting_sessions", min_wait_s=MIN_WAIT_S))
        ),
    }
    if history is not None:
        questions["version rows"] = lambda: _version_rows(conn, history)
        questions["recorded revisions whose objects are missing"] = lambda: _never_ran(conn, history)
        questions["pending revisions whose objects are there already"] = lambda: _lost_stamps(conn, history)
        questions["what a downgrade left behind"] = lambda: _left_behind(conn, history)
        questions["pending revisions that destroy something"] = lambda: _destroyers(conn, history)
        questions["pending revisions that lose their stamp"] = lambda: _stamp_losers(conn, history)
    signs: list[Sign] = []
    notes: list[str] = []
    for subject, ask in questions.items():
        try:
            signs += _in_savepoint(conn, ask)
        except MendError as error:
            notes.append(f"could not check {subject}: {error.message.split('. ')[0].rstrip('.')}")
    return Seen(tuple(signs), tuple(notes))


def known_rows(conn: Connection, history: History) -> tuple[str, ...]:
    """The version rows of this project: where several version tables stand, those that know one of its revisions."""
    from mend.histories.history import version_rows

    frame = version_rows(conn)
    tables = [group["version_num"].tolist() for _, group in frame.groupby(["schema", "table"])]
    ours = [rows for rows in tables if any(row in history.revisions for row in rows)] or (
        tables if len(tables) == 1 else []
    )
    return tuple(row for rows in ours for row in rows if row)


def _below(history: History, revision: str) -> set[str]:
    """Every revision below one by down_revision alone: version rows of dependencies stand side by side with reason."""
    below: set[str] = set()
    left = [revision]
    while left:
        known = history.revisions.get(left.pop())
        new = {parent for parent in known.down if parent not in below} if known else set()
        below |= new
        left += new
    return below


def _in_savepoint(conn: Connection, ask: Callable[[], list[Sign]]) -> list[Sign]:
    from sqlalchemy.exc import DBAPIError

    try:
        with conn.begin_nested():
            return ask()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        raise from_driver(error, "The question failed", "Nothing was changed.") from error
    except KeyError as error:
        raise QueryFailed(f"The answer lacks {error}. Nothing was changed.") from error


def _ask(conn: Connection, name: str, **binds: Any) -> _Rows:
    from mend.database import queries

    return _rows(queries.frame(conn, name, **binds))


def _rows(frame: DataFrame) -> _Rows:
    """Rows with None for what is missing, whatever the column's dtype."""
    plain = frame.astype(object)
    return [
        {str(key): value for key, value in row.items()} for row in plain.where(plain.notna(), None).to_dict("records")
    ]


def _invalid_indexes(rows: _Rows) -> list[Sign]:
    signs = []
    for row in rows:
        says = f"index {row['index_name']} on {row['table_name']} {row['effect']}"
        found = {"table": row["table_name"], "constraint": row["index_name"]}
        if row["builder_pid"]:
            signs.append(
                Sign(SLOW, 0.4, f"{says} by pid {row['builder_pid']}", found | {"pids": str(row["builder_pid"])})
            )
        elif row["is_partitioned"]:
            signs.append(Sign(FAILED, 0.3, says, found))
        else:
            signs.append(Sign(FAILED, 0.75, f"{says} (INVALID)", found))
            if row["is_unique"]:
                signs.append(
                    Sign(UNIQUE, 0.4, f"unique index {row['index_name']} is INVALID: duplicates may be why", found)
                )
    return signs


def _not_valid(rows: _Rows) -> list[Sign]:
    signs = []
    for row in rows:
        slug = (
            FOREIGN
            if row["kind"] == "f"
            else NOT_NULL
            if row["kind"] == "n" or "IS NOT NULL" in row["definition"]
            else FAILED
        )
        found = {
            key: row[name]
            for key, name in (("table", "table_name"), ("columns", "columns"), ("constraint", "constraint_name"))
            if row[name]
        }
        says = f"constraint {row['constraint_name']} on {row['table_name']} is NOT VALID: older rows may break it"
        signs.append(Sign(slug, 0.4 if slug == FAILED else 0.6, says, found))
    return signs


def _next_pending(conn: Connection, history: History | None) -> str:
    """The revision that a migration at work is most likely running; its row is not committed yet."""
    from mend.histories.history import pending

    rows = known_rows(conn, history) if history else ()
    return next(iter(pending(history, rows)), "") if history and rows else ""


def _at_work(rows: _Rows, revision: str) -> list[Sign]:
    """A session that works and holds the version table: alembic keeps it locked until its transaction ends."""
    signs = []
    for row in rows:
        waits = " and waits for a lock" if row["waits"] else ""
        what = (
            f"{row['verb']} on {row['table_name']}"
            if row["table_name"]
            else row["verb"] or "a statement that is not visible"
        )
        lasts_s = row["open_s"] or 0.0  # not visible without pg_monitor
        says = f"a migration is at work: pid {row['pid']} (role {row['role']}) has been in its transaction for {lasts_s:.0f} s, with {what}{waits}"
        found = {"pid": int(row["pid"])} | ({"table": row["table_name"]} if row["table_name"] else {})
        found |= {"revision": revision} if revision else {}
        confidence = 0.5 if row["waits"] else 0.9 if lasts_s >= _LONG_S else 0.85
        signs.append(Sign(SLOW, confidence, says, found))
    return signs


def _waiting(rows: _Rows) -> list[Sign]:
    signs = []
    for row in rows:
        place = f" on {row['table_name']}" if row["table_name"] else ""
        says = f"pid {row['pid']} has waited {row['wait_s']:.0f} s for {row['lock_mode']}{place} behind {row['blockers'] or 'nobody who can be seen'}"
        pids = [pid for pid in row["blocked_by"] or [] if pid]
        found = {"pids": ", ".join(map(str, pids))} | ({"table": row["table_name"]} if row["table_name"] else {})
        table_lock = (
            row["table_name"] or row["lock_mode"] != "ExclusiveLock"
        )  # advisory locks are waited for by job queues too
        signs.append(Sign(DEADLOCK, 0.9 if table_lock else 0.6, says, found))
    return signs


def _with_roots(conn: Connection, found: list[Sign]) -> list[Sign]:
    """The first of these signs also with what the runbook is to be told: who is at the root of the queues."""
    return [replace(sign, parameters=sign.parameters | _in_the_way(conn)) for sign in found[:1]] + found[1:]


def _in_the_way(conn: Connection) -> dict[str, str]:
    """What the runbook must be told to end the queue: the pids of its roots, the name of a prepared transaction among them."""
    from mend.queue import waits

    forest = waits.look(conn)
    late = {pid for pid, wait in forest.wait_of.items() if wait.wait_s >= MIN_WAIT_S}
    roots = [key for key in forest.roots if late & forest.below(key)]
    pids, gids = (
        [str(key) for key in roots if key > 0],
        [forest.prepared[key].gid for key in roots if key in forest.prepared],
    )
    return ({"blockers": ", ".join(pids)} if pids else {}) | ({"gid": gids[0]} if gids else {})


def _version_rows(conn: Connection, history: History) -> list[Sign]:
    rows = known_rows(conn, history)
    if not rows:
        tables = _ask(conn, "triage/user_tables")[0]["tables"]
        empty = Sign(MISMATCH, 0.5, f"there is no version row, but {tables} tables: this database was never stamped")
        return [empty] if tables and history.revisions else []
    signs = [
        Sign(CONFLICT, 0.92, f"the version row {row} is known to no file", {"revision": row})
        for row in rows
        if row not in history.revisions
    ]
    signs += [
        Sign(CONFLICT, 0.92, f"the version row {row} is there {rows.count(row)} times", {"revision": row})
        for row in sorted(set(rows))
        if rows.count(row) > 1
    ]
    for row in rows:
        signs += [
            Sign(CONFLICT, 0.9, f"the version rows hold {row} and its ancestor {old}", {"revision": old})
            for old in sorted(_below(history, row) & set(rows))
        ]
    return signs


def _never_ran(conn: Connection, history: History) -> list[Sign]:
    """Recorded revisions whose objects are not there: stamped and never run, or taken back by hand."""
    rows = known_rows(conn, history)
    applied = history.ancestors(rows)
    paths = {name: history.revisions[name].path for name in history.ordered() if name in applied}
    wanted = promises.standing(paths)
    signs = []
    for name, objects in list(wanted.items())[-_RECORDED_READ:]:
        missing = [o for o in _present(conn, objects, "triage/objects_anywhere") if not o["present"]]
        if missing:
            share = (
                "nothing"
                if len(missing) == len(objects)
                else f"{len(objects) - len(missing)} of {len(objects)} objects"
            )
            lacking = ", ".join(sorted(_object(o) for o in missing)[:5])
            says = f"revision {name} is recorded, but {share} that it creates is there; missing: {lacking}"
            signs.append(Sign(MISMATCH, 0.9, says, {"revision": name}))
    return signs


def _destroyers(conn: Connection, history: History) -> list[Sign]:
    """Pending revisions that plainly drop, empty or delete from what is there: nothing has failed, and it is not too late."""
    from mend.histories.history import pending

    rows = known_rows(conn, history)
    if history.missing_parents or not rows or not set(rows) <= history.revisions.keys():
        return []
    signs = []
    for name in pending(history, rows)[:_PENDING_READ]:
        there = [o for o in _present(conn, promises.destroys(history.revisions[name].path)) if o["present"]]
        if there:
            names = ", ".join(sorted(_object(o) for o in there)[:5])
            says = f"revision {name} is pending, and destroys what is in {names}"
            signs.append(Sign(LOSS, 0.4, says, {"revision": name}))
    return signs


def _lost_stamps(conn: Connection, history: History) -> list[Sign]:
    """Pending revisions that create what is there already: applied by half, or wholly but never stamped.

    One revision is a run that failed; of several that are wholly there, somebody put the version row back.
    """
    from mend.histories.history import pending

    rows = known_rows(conn, history)
    signs: list[Sign] = []
    if history.missing_parents or not set(rows) <= history.revisions.keys():
        return signs  # nobody can say what is pending
    if rows and len(ahead := _wholly_there(conn, history, pending(history, rows))) > 1:
        says = f"{len(ahead)} pending revisions are wholly there, from {ahead[0]} to {ahead[-1]}: the version row was put back"
        return [Sign(MISMATCH, 0.97, says)]
    for name in pending(history, rows)[:_PENDING_READ] if rows else ():
        revision = history.revisions[name]
        wanted = promises.creates(revision.path)
        there = [o for o in _present(conn, wanted) if o["present"]]
        if there:
            share = "everything" if len(there) == len(wanted) else f"{len(there)} of {len(wanted)} objects"
            names = ", ".join(sorted(_object(o) for o in there)[:5])
            signs.append(
                Sign(
                    FAILED,
                    0.8,
                    f"revision {revision.id} is pending, but there already is {share} that it creates: {names}",
                    {"revision": revision.id},
                )
            )
    return signs


def _left_behind(conn: Connection, history: History) -> list[Sign]:
    """The next pending revision's enums are there and nothing else of it: its downgrade() did not drop them."""
    from mend.histories.history import pending

    rows = known_rows(conn, history)
    if history.missing_parents or not set(rows) <= history.revisions.keys():
        return []
    for name in pending(history, rows)[:1] if rows else ():
        path = history.revisions[name].path
        enums = [o for o in _present(conn, promises.types(path)) if o["present"]]
        others = [o for o in _present(conn, promises.creates(path)) if o["present"]]
        if enums and not others:
            listed = ", ".join(sorted(_plain(o["name"]) for o in enums))
            says = f"of the pending revision {name} only type {listed} is there: a downgrade left it behind"
            return [Sign(ROLLBACK, 0.9, says)]
    return []


def _wholly_there(conn: Connection, history: History, waiting: Sequence[str]) -> list[str]:
    """The next pending revisions, as far as each creates something and all of it is there."""
    found = []
    for name in waiting[:_PENDING_READ]:
        wanted = promises.creates(history.revisions[name].path)
        if not wanted or not all(o["present"] for o in _present(conn, wanted)):
            break
        found.append(name)
    return found


def _object(row: dict[str, Any]) -> str:
    return _plain(f"{row['table_name']}.{row['name']}" if row["kind"] == "column" else row["name"])


def _stamp_losers(conn: Connection, history: History) -> list[Sign]:
    """What in env.py or a pending revision makes alembic exit with 0 and forget: told from the files, so of the source "files"."""
    from mend.histories.history import pending
    from mend.histories.lint import lint_files

    waiting = pending(history, known_rows(conn, history))[:_PENDING_READ]
    found = lint_files(history.env_py, [history.revisions[name].path for name in waiting]) if waiting else []
    return [
        Sign(
            FAILED,
            _STAMP_LOSERS[finding],
            f"{Path(file).name}, line {line}, {says}",
            {"revision": _named(history, file) or waiting[0]},
            "files",
        )
        for file, line, finding, says in found
        if finding in _STAMP_LOSERS
    ]


def _named(history: History, file: str) -> str:
    return next((revision.id for revision in history.files if str(revision.path) == file), "")


def _present(conn: Connection, wanted: list[tuple[str, str, str]], question: str = "triage/objects_present") -> _Rows:
    if not wanted:
        return []
    kinds, tables, names = (list(part) for part in zip(*wanted, strict=True))
    return _ask(conn, question, kinds=kinds, tables=tables, names=names)


def _plain(name: str) -> str:
    return name.replace('"', "")

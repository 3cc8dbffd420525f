"""What the revision files show by themselves, and beside the database: version rows that they do not know, objects that are missing or there too early."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mend.symptoms import promises
from mend.symptoms.sign import Rows, Sign, ask
from mend.symptoms.signatures import CONFLICT, FAILED, LOSS, MISMATCH, ROLLBACK

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mend.histories.history import History

_STAMP_LOSERS = {"sql_before_configure": 0.6, "commit": 0.5, "commit_text": 0.5}  # findings of lint
_PENDING_READ = 10  # pending revisions whose objects are looked for
_RECORDED_READ = 30  # recorded revisions whose objects are looked for, the latest


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


def questions(conn: Connection, history: History) -> dict[str, Callable[[], list[Sign]]]:
    """What is asked of a database whose revision files are at hand; each may fail by itself."""
    return {
        "version rows": lambda: _version_rows(conn, history),
        "recorded revisions whose objects are missing": lambda: _never_ran(conn, history),
        "pending revisions whose objects are there already": lambda: _lost_stamps(conn, history),
        "what a downgrade left behind": lambda: _left_behind(conn, history),
        "pending revisions that destroy something": lambda: _destroyers(conn, history),
        "pending revisions that lose their stamp": lambda: _stamp_losers(conn, history),
    }


def known_rows(conn: Connection, history: History) -> tuple[str, ...]:
    """The version rows of this project: where several version tables stand, those that know one of its revisions."""
    from mend.histories.history import version_rows

    frame = version_rows(conn)
    tables = [group["version_num"].tolist() for _, group in frame.groupby(["schema", "table"])]
    ours = [rows for rows in tables if any(row in history.revisions for row in rows)] or (
        tables if len(tables) == 1 else []
    )
    return tuple(row for rows in ours for row in rows if row)


def next_pending(conn: Connection, history: History | None) -> str:
    """The revision that a migration at work is most likely running; its row is not committed yet."""
    from mend.histories.history import pending

    rows = known_rows(conn, history) if history else ()
    return next(iter(pending(history, rows)), "") if history and rows else ""


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


def _version_rows(conn: Connection, history: History) -> list[Sign]:
    rows = known_rows(conn, history)
    if not rows:
        tables = ask(conn, "triage/user_tables")[0]["tables"]
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


def _present(conn: Connection, wanted: list[tuple[str, str, str]], question: str = "triage/objects_present") -> Rows:
    if not wanted:
        return []
    kinds, tables, names = (list(part) for part in zip(*wanted, strict=True))
    return ask(conn, question, kinds=kinds, tables=tables, names=names)


def _plain(name: str) -> str:
    return name.replace('"', "")

"""What a database shows by itself, before anybody has reported an error.

Every question stands in a savepoint of its own: one that cannot be answered becomes a note, and the others are still asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mend.errors import MendError, QueryFailed, from_driver
from mend.symptoms import history_signs
from mend.symptoms.sign import Rows, Seen, Sign, ask
from mend.symptoms.signatures import DEADLOCK, FAILED, FOREIGN, NOT_NULL, SLOW, UNIQUE

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mend.histories.history import History

MIN_WAIT_S = 0.5  # shorter waits for a lock are everyday
MIN_WORK_S = 1.0  # and so are shorter transactions
_LONG_S = 60.0  # from here on a migration is slow whatever it does


def of_database(conn: Connection, history: History | None) -> Seen:
    """What the database shows, compared with the revision files where they are given."""
    questions: dict[str, Callable[[], list[Sign]]] = {
        "invalid indexes": lambda: _invalid_indexes(ask(conn, "triage/invalid_indexes")),
        "constraints that are not validated": lambda: _not_valid(ask(conn, "triage/not_valid_constraints")),
        "migrations at work": lambda: _at_work(
            ask(conn, "triage/migrations_at_work", min_open_s=MIN_WORK_S), history_signs.next_pending(conn, history)
        ),
        "sessions waiting for locks": lambda: _with_roots(
            conn, _waiting(ask(conn, "triage/waiting_sessions", min_wait_s=MIN_WAIT_S))
        ),
    }
    if history is not None:
        questions |= history_signs.questions(conn, history)
    signs: list[Sign] = []
    notes: list[str] = []
    for subject, question in questions.items():
        try:
            signs += _in_savepoint(conn, question)
        except MendError as error:
            notes.append(f"could not check {subject}: {error.message.split('. ')[0].rstrip('.')}")
    return Seen(tuple(signs), tuple(notes))


def _in_savepoint(conn: Connection, question: Callable[[], list[Sign]]) -> list[Sign]:
    from sqlalchemy.exc import DBAPIError

    try:
        with conn.begin_nested():
            return question()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        raise from_driver(error, "The question failed", "Nothing was changed.") from error
    except KeyError as error:
        raise QueryFailed(f"The answer lacks {error}. Nothing was changed.") from error


def _invalid_indexes(rows: Rows) -> list[Sign]:
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


def _not_valid(rows: Rows) -> list[Sign]:
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


def _at_work(rows: Rows, revision: str) -> list[Sign]:
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


def _waiting(rows: Rows) -> list[Sign]:
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

"""A pasted deadlock, in every form in which PostgreSQL and drivers write it."""

from __future__ import annotations

import pytest
from mend.queue import deadlock_detail

CLIENT = """sqlalchemy.exc.OperationalError: (psycopg.errors.DeadlockDetected) deadlock detected
DETAIL:  Process 22217 waits for AccessExclusiveLock on relation 16392 of database 16752; blocked by process 22175.
Process 22175 waits for AccessShareLock on relation 16532 of database 16752; blocked by process 22217.
HINT:  See server log for query details.
[SQL: ALTER TABLE customers ADD COLUMN likes_gift_wrap BOOLEAN DEFAULT false NOT NULL]
"""
LOG = """2026-05-05 10:00:00 UTC [9] ERROR:  deadlock detected
2026-05-05 10:00:00 UTC [9] DETAIL:  Process 9 waits for ShareLock on transaction 812; blocked by process 7.
\tProcess 7 waits for ShareLock on transaction 811; blocked by process 9.
\tProcess 9: update users set email = 'ann@example.org' where id = 7
\tProcess 7: update users set email = 'bob@example.org' where id = 9
2026-05-05 10:00:00 UTC [9] CONTEXT:  while updating tuple (0,7) in relation "users"
"""


def test_the_clients_text_gives_pids_modes_and_relations() -> None:
    found = deadlock_detail.parse(CLIENT)
    assert found is not None
    assert [(p.pid, p.mode, p.relation, p.database, p.blocked_by) for p in found.processes] == [
        (22217, "ACCESS EXCLUSIVE", 16392, 16752, 22175),
        (22175, "ACCESS SHARE", 16532, 16752, 22217),
    ]
    names = {16392: "public.customers", 16532: "public.orders"}
    assert (
        found.told(names)[0]
        == "process 22217 asked for ACCESS EXCLUSIVE on public.customers, and process 22175 held it"
    )
    assert "public.customers and public.orders in opposite order" in found.lesson(names)
    assert "relation 16392 of database 16752" in found.told({})[0]


def test_the_servers_log_gives_the_statements_by_their_shape() -> None:
    found = deadlock_detail.parse(LOG)
    assert found is not None
    assert [p.statement for p in found.processes] == ["update users set email = '' where id = 0"] * 2
    assert found.row_of == "users"
    assert "in the order of their keys" in found.lesson({})
    assert "example.org" not in deadlock_detail.excerpt(LOG)


@pytest.mark.parametrize("text", [CLIENT, LOG])
def test_an_excerpt_says_the_same_and_nothing_else(text: str) -> None:
    excerpt = deadlock_detail.excerpt(text)
    again = deadlock_detail.parse(excerpt)
    assert again is not None
    assert again.processes == deadlock_detail.parse(text).processes  # type: ignore[union-attr]
    assert all(line.startswith("Process ") for line in excerpt.splitlines())


def test_of_several_the_last_one_counts() -> None:
    found = deadlock_detail.parse(LOG + CLIENT)
    assert found is not None
    assert {p.pid for p in found.processes} == {22217, 22175}


def test_the_same_lock_taken_stronger_is_told() -> None:
    text = "Process 1 waits for AccessExclusiveLock on relation 5 of database 1; blocked by process 2.\nProcess 2 waits for AccessExclusiveLock on relation 5 of database 1; blocked by process 1."
    found = deadlock_detail.parse(text)
    assert found is not None
    assert "Take the strongest lock first" in found.lesson({5: "public.t"})


@pytest.mark.parametrize(
    "text", ["", "deadlock detected", "Process x waits for", "ERROR:  canceling statement due to lock timeout"]
)
def test_what_is_no_detail_is_none(text: str) -> None:
    assert deadlock_detail.parse(text) is None
    assert deadlock_detail.excerpt(text) == ""

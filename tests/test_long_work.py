"""What is known of long work, as values; and what would be proposed for the revision's file."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
from mend.change.kept import Keeper
from mend.queue.backends import Backend
from mend.repairs.halfway import Seen
from mend.replays.recording import Statement
from mend.slow import dml, explained, forward_file, long_work, plots_eta, wear
from mend.slow.at_work import Session, Work
from mend.slow.eta import Course, Look, estimate
from mend.slow.long_work import Facts
from mend.slow.takeover import Takeover

GIVEN = {"patience_s": 60, "end_patience_s": 5.0, "end_superusers": False, "workers": 1, "batch_ms": 100, "at_most": 0}
LIVE = {
    ("table", "public.t"): "permanent",
    ("column", "public.t.id"): "bigint",
    ("column", "public.t.a"): "text",
    ("constraint", "public.t.t_pkey"): "PRIMARY KEY (id)",
}


def facts() -> Facts:
    """A long UPDATE at work, without a project and without a database."""
    sql = "update t set a = '' where a is null"
    worker = Session(
        7, "2026-01-01", "app", "", "", "active", "", 60.0, 61.0, "2026-01-01", "800", True, (("public.t", "ROW EXCLUSIVE"),), (), sql,
        ("runs a statement of the revision",),
    )  # fmt: skip
    backend = Backend(
        7, "2026-01-01 00:00:00.000000+00", "2026-01-01 00:00:00.000000+00", "1", "app", False, True, "", "", "shop", True, "client backend",
        "active", "", 60.0, 60.0, sql,
    )  # fmt: skip
    work = Work((worker,), pd.DataFrame(columns=["pid"]), 0, True, False, "")
    return Facts(
        work, worker, backend, None, "", None, sql, dml.read(sql), "public.t", 1e6, Course("rows", (Look(60, 1e5, 9e5),), 0.0), None, "",
        explained.Explained(pd.DataFrame(columns=explained.COLUMNS)), None, wear.Wear(pd.DataFrame(columns=wear.COLUMNS), (), (), ""),
        Takeover("public.t", {"a": "''"}, "(a is null) and (t.a is distinct from (''))"), None, False, LIVE, Keeper("mend", "key", {"public.t": ("id",)}), GIVEN,
    )  # fmt: skip


def test_the_ceiling_is_a_round_number_that_does_not_move_while_it_is_reviewed() -> None:
    assert long_work.ceiling(facts()) == 10_000_000


def test_the_evidence_names_the_session_and_what_would_be_changed() -> None:
    evidence = long_work.evidence(facts())
    assert evidence["session"] == "pid 7, begun 2026-01-01 00:00:00.000000+00, statement 1"
    assert evidence["values"] == {"a": "''"}


def test_the_course_is_drawn_with_its_words() -> None:
    course = Course("rows", tuple(Look(60.0 + n, 1e5 + 1e3 * n, 9e5 - 1e3 * n, 2e3) for n in range(4)), 0.0)
    drawn = plots_eta.course(course, estimate(course))
    assert drawn is not None
    assert "data:image/png;base64," in drawn.html
    assert "Share done over time: 10 % done" in drawn.html
    assert plots_eta.course(Course("rows", ()), None) is None


REVISION = """def upgrade():
    op.add_column("u", c)
    op.execute("UPDATE t SET a = lower(b) WHERE id > 3")
    op.create_index("i", "t", ["a"])
"""


def test_the_long_statement_becomes_a_question_in_the_proposed_split() -> None:
    made = forward_file.asked_instead(
        REVISION, "update t set a = lower(b) where id > 3", "(id > 3) and (t.a is distinct from (lower(b)))", "public.t"
    )
    assert made is not None
    compile(made, "revision.py", "exec")
    assert "op.execute" not in made
    assert "SELECT EXISTS (SELECT FROM public.t AS t WHERE (id > 3)" in made
    assert made.startswith('def upgrade():\n    op.add_column("u", c)\n')


def test_the_statement_is_narrowed_to_rows_that_are_not_done() -> None:
    made = forward_file.narrowed(REVISION, "UPDATE t SET a = lower(b) WHERE id > 3", told=["a"])
    assert made is not None
    compile(made, "revision.py", "exec")
    assert "WHERE (id > 3) AND (a IS DISTINCT FROM (lower(b)))" in made


def test_a_file_that_does_not_say_it_as_one_text_is_left_alone() -> None:
    for text in (
        REVISION.replace('"UPDATE t SET a = lower(b) WHERE id > 3"', 'f"UPDATE t SET a = lower({x}) WHERE id > 3"'),
        REVISION * 2,
    ):
        assert forward_file.narrowed(text, "update t set a = lower(b) where id > 3", told=["a"]) is None


def test_a_column_that_gets_another_value_each_time_does_not_tell_what_is_done() -> None:
    sql = "UPDATE t SET a = lower(b), at = now() WHERE id > 3"
    made = forward_file.narrowed(REVISION.replace("UPDATE t SET a = lower(b) WHERE id > 3", sql), sql, told=["a"])
    assert made is not None
    assert "AND (a IS DISTINCT FROM (lower(b)))" in made


def test_a_loop_is_known_by_its_while() -> None:
    sql = "update t set a = 'x' where id in (select id from t where a is null limit 10)"
    text = (
        f'SQL = "{sql}"\ndef upgrade():\n    while True:\n        if not bind.execute(sa.text(SQL)).rowcount: break\n'
    )
    assert forward_file.loops(text, sql)
    assert not forward_file.loops(text.replace("while True", "for _ in range(3)"), sql)
    assert not forward_file.loops(text, "update t set b = 'x'")


def unknown(now: Facts, sql: str = "", *, looped: bool = False, table: str = "public.t") -> str:
    return long_work._unknown(now.worker, now.seen, dml.read(sql) if sql else now.change, table, looped)


def test_what_is_not_known_to_be_the_same_rows_is_not_taken_over() -> None:
    now = facts()
    assert now.worker is not None
    few = "update t set a = 'x' where id in (select id from t where a is null limit 10)"
    assert unknown(now) == ""
    assert "LIMIT" in unknown(now, few)
    assert unknown(now, few, looped=True) == ""
    assert "search_path" in unknown(now, table="app.t")
    assert "beginning of its text" in unknown(replace(now, worker=replace(now.worker, cut=True)))
    own = Statement("r", 1, 1, "execute", "", now.sql, True, False, 1, (), True, settings=("set local timezone = 'utc'", "set local lock_timeout = '2s'"))  # fmt: skip
    assert "timezone" in unknown(replace(now, seen=Seen(own, "DATA", "", False)))


def test_of_statements_that_differ_in_values_alone_the_one_at_work_is_found() -> None:
    now = facts()
    assert now.worker is not None
    texts = ("update t set a = 'x' where b = 1", "update t set a = 'y' where b = 2")
    seen = [Seen(Statement("r", n, 1, "execute", "", text, True, False, 1, (), True), "DATA", "", False) for n, text in enumerate(texts, 1)]  # fmt: skip
    found = long_work._running(seen, replace(now.worker, query="UPDATE t SET a = 'y' WHERE b = 2"))
    assert found is None  # not letter for letter: nobody knows
    found = long_work._running(seen, replace(now.worker, query=f"/* a comment */ {texts[1]};"))
    assert found is seen[1]

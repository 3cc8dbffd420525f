"""What is known of long work, as values; and what would be proposed for the revision's file."""

from __future__ import annotations

import pandas as pd
from mend import dml, explained, forward_file, long_work, plots_eta, wear
from mend.at_work import Session, Work
from mend.backends import Backend
from mend.eta import Course, Look, estimate
from mend.kept import Keeper
from mend.long_work import Facts
from mend.takeover import Takeover

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
    made = forward_file.narrowed(REVISION, "UPDATE t SET a = lower(b) WHERE id > 3")
    assert made is not None
    compile(made, "revision.py", "exec")
    assert "WHERE (id > 3) AND (a IS DISTINCT FROM (lower(b)))" in made


def test_a_file_that_does_not_say_it_as_one_text_is_left_alone() -> None:
    for text in (
        REVISION.replace('"UPDATE t SET a = lower(b) WHERE id > 3"', 'f"UPDATE t SET a = lower({x}) WHERE id > 3"'),
        REVISION * 2,
    ):
        assert forward_file.narrowed(text, "update t set a = lower(b) where id > 3") is None

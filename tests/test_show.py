"""What the operator sees, as HTML and as text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from fix_record import a_plan
from mend.database import parameters
from mend.database.parameters import Parameter
from mend.diagnosis import Check, Diagnosis, Prevention
from mend.errors import PlanIsStale
from mend.plan import Plan
from mend.record import markup, show

IDENTITY = {
    "database": "shop",
    "database_oid": 5,
    "server_version": "18.1",
    "role": "ann",
    "superuser": False,
    "system_identifier": "77",
    "in_recovery": False,
}


def _check(frame: pd.DataFrame, **changes: Any) -> Check:
    values: dict[str, Any] = {
        "name": "left",
        "question": "What is left?",
        "verdict": "found",
        "says": "Things are left.",
        "healthy_when": "Nothing is left.",
        "frame": frame,
        "sql": "select 1",
    }
    return Check(**(values | changes))


def test_the_lab_is_written_large_and_production_is_named() -> None:
    assert "LAB" in show.card(IDENTITY, "lab", lab=True).html
    live = show.card(IDENTITY, "env:<PROD>", lab=False)
    assert "LAB" not in live.html
    assert "env:&lt;PROD&gt;" in live.html
    assert "Role: ann" in live.text
    assert "superuser" in show.card(IDENTITY | {"superuser": True}, "x", lab=False).text


def test_a_check_shows_twenty_rows_and_how_many_more() -> None:
    shown = show.check(_check(pd.DataFrame({"n": range(25)})))
    assert shown.html.count("<tr>") == 21
    assert "and 5 more" in shown.html
    assert "and 5 more" in shown.text


def test_a_check_tells_verdict_answer_health_and_sql() -> None:
    shown = show.check(_check(pd.DataFrame()))
    for part in (
        "FOUND",
        "Things are left.",
        "Healthy when: Nothing is left.",
        "<details><summary>The SQL that ran</summary><pre>select 1</pre>",
    ):
        assert part in shown.html
    assert "[found] What is left?" in shown.text


def test_a_check_that_could_not_be_made_says_why() -> None:
    shown = show.check(_check(pd.DataFrame(), verdict="could_not_check", says="All fine.", why="No privilege."))
    assert "COULD NOT CHECK" in shown.html
    assert "No privilege." in shown.html
    assert "All fine." not in shown.html


VALUES = [
    (None, "NULL"), (np.nan, "NULL"), (pd.NaT, "NULL"), (pd.NA, "NULL"), (True, "yes"), (np.float64(1.5), "1.5"), (1234.0, "1,234"),
    (12, "12"), ([1, None], "1, NULL"), ("", ""), ("x" * 500, "x" * 400 + "… (500 characters)"), (pd.Timestamp("2026-01-02", tz="UTC"), "2026-01-02 00:00:00+00:00"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "text"), VALUES)
def test_a_value_is_one_text(raw: object, text: str) -> None:
    assert markup.value(raw) == text


def test_invisible_characters_are_made_visible() -> None:
    assert markup.escape("a\u202eb\x00") == "a\\u202eb\\u0000"


def test_states_are_words_in_colour() -> None:
    shown = show.operations(pd.DataFrame({"operation": ["create_index"], "state": ["NOT_DONE"], "detail": ["x"]}))
    assert '<span class="mend-badge mend-warn">NOT DONE</span>' in shown.html
    assert "NOT_DONE" in shown.text


def test_what_was_not_asked_is_neither_healthy_nor_found() -> None:
    left_out = _check(pd.DataFrame(), verdict="not_asked", question="How does it go on a copy?")
    assert "NOT ASKED" in show.check(left_out).html
    assert "HEALTHY" not in show.check(left_out).html
    assert Diagnosis((left_out, _check(pd.DataFrame(), verdict="healthy")), {}).verdict() == "healthy"
    assert Diagnosis((left_out, _check(pd.DataFrame(), verdict="found")), {}).verdict() == "found"


def test_verdicts_list_every_question() -> None:
    diagnosis = Diagnosis((_check(pd.DataFrame()), _check(pd.DataFrame(), verdict="healthy", question="Else?")), {})
    html = show.verdicts(diagnosis).html
    assert "What is left?" in html
    assert "Else?" in html


def test_a_plan_shows_what_will_run_and_how_back() -> None:
    plan = a_plan()
    shown = show.plan(plan)
    for part in (
        "CHOSEN",
        "NOT POSSIBLE",
        "2 are missing.",
        "drop index concurrently public.ix;",
        "SHARE UPDATE EXCLUSIVE on public.orders",
        "Build it again".lower() and "create index ix on public.orders (id);",
        "Cannot be taken back: the old row is gone",
        "a warning",
        plan.digest(),
    ):
        assert part in shown.html
    assert plan.digest() in shown.text
    assert "update alembic_version" in shown.text
    option = plan.options[0]
    assert f"costs: {option.costs}" in shown.text
    assert all(f"why not: {o.why_not}" in shown.text for o in plan.options if not o.possible)
    assert "-- taken back by:\n        create index ix on public.orders (id);" in shown.text


def test_a_plan_without_steps_offers_no_digest() -> None:
    plan = Plan("x", {}, {}, "retry", next="alembic upgrade head")
    shown = show.plan(plan)
    assert plan.digest() not in shown.html
    assert "No step is planned." in shown.html
    assert "alembic upgrade head" in shown.html


def test_plain_text_fits_and_loses_no_word() -> None:
    words = " ".join(f"word{n}" for n in range(30))
    rows = [
        {
            "index": 1,
            "objects": "index public.ix_orders_status_placed_at",
            "state": "DIFFERENT",
            "detail": f"{words} INVALID",
        },
        {"index": 2, "objects": "x" * 130, "state": "DONE", "detail": "one\ntwo"},
    ]
    text = show.operations(rows).text
    assert max(map(len, text.splitlines())) <= 100
    assert set(f"{words} INVALID DIFFERENT one two".split()) <= set(text.split())
    assert text.count("x") == 130 + 3, "index, index, ix"
    assert text.splitlines()[0].split() == ["index", "objects", "state", "detail"]


def test_undo_tells_the_command_and_what_is_lost() -> None:
    shown = show.undo(a_plan(), "the-run")
    assert "<code>mend undo the-run</code>" in shown.html
    assert "Not reversible. Record the revision: the old row is gone" in shown.html


def test_a_diff_is_coloured_and_escaped() -> None:
    html = show.prevention([Prevention("Do <this>.", "-old\n+new <b>\n@@ 1 @@\n same")]).html
    assert '<span class="mend-del">-old</span>' in html
    assert '<span class="mend-add">+new &lt;b&gt;</span>' in html
    assert "Do &lt;this&gt;." in html


def test_an_error_lists_what_changed_once() -> None:
    assert "<li>a -&gt; b</li>" in show.error(PlanIsStale("It moved.", differences=["a -> b"])).html
    assert "<li>" not in show.error(PlanIsStale("It moved: a -> b", differences=["a -> b"])).html


@pytest.mark.parametrize("kind", [*show.TITLES, "new"])
def test_every_outcome_has_a_title(kind: str) -> None:
    assert show.TITLES.get(kind, kind) in show.outcome("Text.", kind).html


def test_parameters_are_shown_with_value_and_meaning() -> None:
    declared = [Parameter("target", str, "lab", "where"), Parameter("dry_run", bool, True, "change nothing")]
    html = show.parameters(declared, {"target": "<x>"}).html
    assert "&lt;x&gt;" in html
    assert "yes" in html
    assert "change nothing" in html


def test_every_fragment_is_a_mime_bundle_of_both_kinds() -> None:
    bundle = show.progress(["one", "two"])._repr_mimebundle_()
    assert bundle.keys() == {"text/html", "text/plain"}
    assert bundle["text/plain"] == repr(show.progress(["one", "two"])) == "one\ntwo"


def test_the_real_runbook_can_be_shown() -> None:
    declared = parameters.of("failed_migration")
    assert "lock_timeout_ms" in show.parameters(declared, {}).text

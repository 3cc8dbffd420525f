"""A plan's digest covers what an approver approves and nothing that merely moves; its record is the plan."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import mend
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mend.plan import DIGEST_LENGTH, Choice, Expect, Lock, Plan, Statement, Step, from_record, what_changed

quick = settings(deadline=None, max_examples=60)

TEXT = st.text(max_size=12)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
ROWS = st.none() | st.integers(0, 9)
STATEMENTS = st.lists(st.builds(Statement, TEXT, exactly=ROWS, at_most=ROWS), max_size=2).map(tuple)
EXPECTS = st.lists(st.builds(Expect, TEXT, TEXT, st.none() | TEXT), max_size=2).map(tuple)
LEAVES = st.builds(
    Step,
    TEXT,
    STATEMENTS,
    kind=st.sampled_from(["sql", "upgrade", "file", "invalid_index"]),
    transactional=st.booleans(),
    retryable=st.booleans(),
    locks=st.lists(st.builds(Lock, TEXT, TEXT, TEXT), max_size=2).map(tuple),
    rewrite=st.none() | st.booleans(),
    rows_expected=ROWS,
    estimated_s=st.none() | st.floats(0, 9),
    before=EXPECTS,
    after=EXPECTS,
    restart=STATEMENTS,
    irreversible=TEXT,
    arguments=st.dictionaries(TEXT, JSON, max_size=2),
)
STEPS = st.builds(lambda step, undo: replace(step, undo=tuple(undo)), LEAVES, st.lists(LEAVES, max_size=2))
PLANS = st.builds(
    Plan,
    TEXT,
    st.dictionaries(TEXT, st.integers(0, 9) | TEXT, max_size=2),
    st.dictionaries(TEXT, JSON, max_size=3),
    TEXT,
    options=st.lists(st.builds(Choice, TEXT, TEXT, TEXT, st.booleans(), TEXT), max_size=2).map(tuple),
    steps=st.lists(STEPS, max_size=3).map(tuple),
    next=TEXT,
    warnings=st.lists(TEXT, max_size=2).map(tuple),
)

STEP = Step("Drop it", (Statement("drop table t"),), undo=(Step("Make it", (Statement("create table t ()"),)),))
PLAN = Plan(
    "failed_migration", {"database": "shop", "database_oid": 7}, {"rows": {"a": "present"}}, "resume", steps=(STEP,)
)

#: for every field of a step, another value
OTHER_PARTS: Mapping[str, Any] = {
    "says": "Drop them",
    "statements": (Statement("drop table t", exactly=0),),
    "kind": "upgrade",
    "transactional": False,
    "retryable": False,
    "locks": (Lock("public.t", "ACCESS EXCLUSIVE"),),
    "rewrite": None,
    "before": (Expect("table", "public.t", "permanent"),),
    "after": (Expect("table", "public.t", None),),
    "restart": (Statement("select 1"),),
    "undo": (),
    "irreversible": "because",
    "arguments": {"path": "a.py"},
}
ESTIMATES: Mapping[str, Any] = {"rows_expected": 12, "estimated_s": 3.5}


def test_the_lists_above_name_every_field_of_a_step() -> None:
    assert {field.name for field in fields(Step)} == {*OTHER_PARTS, *ESTIMATES}


@pytest.mark.parametrize("part", OTHER_PARTS)
def test_any_change_of_a_step_changes_the_digest_also_deep_in_its_undo(part: str) -> None:
    other = replace(STEP, **{part: OTHER_PARTS[part]})
    assert replace(PLAN, steps=(other,)).digest() != PLAN.digest()
    nested = replace(STEP, undo=(replace(STEP, undo=(other,)),))
    assert replace(PLAN, steps=(nested,)).digest() != replace(PLAN, steps=(replace(STEP, undo=(STEP,)),)).digest()


@pytest.mark.parametrize("part", ESTIMATES)
def test_an_estimate_does_not_change_the_digest_nor_does_one_in_an_undo(part: str) -> None:
    estimated = replace(STEP, **{part: ESTIMATES[part]})
    assert replace(PLAN, steps=(estimated,)).digest() == PLAN.digest()
    back = replace(STEP.undo[0], **{part: ESTIMATES[part]})
    assert replace(PLAN, steps=(replace(STEP, undo=(back,)),)).digest() == PLAN.digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"slug": "deadlock"},
        {"chosen": "stamp"},
        {"target": {"database": "shop", "database_oid": 8}},
        {"target": {"database": "shop"}},
        {"evidence": {"rows": {"a": "present", "b": "present"}}},
        {"evidence": {"rows": {}}},
        {"evidence": {}},
        {"steps": ()},
        {"steps": (STEP, STEP)},
    ],
    ids=str,
)
def test_a_change_of_the_identity_the_evidence_or_the_choice_changes_the_digest(changes: dict[str, Any]) -> None:
    assert replace(PLAN, **changes).digest() != PLAN.digest()
    assert what_changed(PLAN, replace(PLAN, **changes))
    assert what_changed(replace(PLAN, **changes), PLAN)


def test_what_is_only_told_does_not_change_the_digest() -> None:
    told = replace(PLAN, next="then go home", warnings=("careful",), options=(Choice("resume", "", ""),))
    assert told.digest() == PLAN.digest()
    assert what_changed(PLAN, told) == []


@given(PLANS)
@quick
def test_the_record_of_a_plan_is_the_plan(plan: Plan) -> None:
    assert from_record(json.loads(json.dumps(plan.as_record()))) == plan


@given(PLANS, PLANS)
@quick
def test_plans_with_different_digests_have_a_difference_to_tell_and_others_have_none(old: Plan, new: Plan) -> None:
    told = what_changed(old, new)
    assert bool(told) == (old.digest() != new.digest())
    assert all(line.strip() for line in told)


@given(PLANS, st.data())
@quick
def test_a_change_of_one_step_is_told_with_its_number(plan: Plan, data: st.DataObject) -> None:
    assume(plan.steps)
    n = data.draw(st.integers(0, len(plan.steps) - 1))
    changed = replace(plan, steps=(*plan.steps[:n], data.draw(STEPS), *plan.steps[n + 1 :]))
    assume(changed.digest() != plan.digest())
    (line,) = what_changed(plan, changed)
    assert line.startswith(f"step {n + 1}")


def test_a_plan_from_its_record_differs_from_a_fresh_one_only_where_the_database_moved() -> None:
    fresh = replace(PLAN, evidence={"heads": ("a", "b"), "rows": {"a": "present"}})
    kept = from_record(json.loads(json.dumps(fresh.as_record())))
    assert what_changed(kept, fresh) == []
    moved = replace(fresh, evidence={"heads": ("a", "b"), "rows": {"b": "present"}})
    assert what_changed(kept, moved) == ["rows: a: present -> (absent)", "rows: b: (absent) -> present"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ({"last_run": None}, {}, "last_run: None -> (absent)"),
        ({}, {"last_run": None}, "last_run: (absent) -> None"),
        ({"rows": {"a": None}}, {"rows": {}}, "rows: a: None -> (absent)"),
        ({"count": 1}, {"count": True}, "count: 1 -> True"),
        ({"rows": {"a": 1}}, {"rows": ["a"]}, "rows: {'a': 1} -> ['a']"),
    ],
)
def test_differences_that_python_calls_equal_are_told_too(old: dict[str, Any], new: dict[str, Any], told: str) -> None:
    before, after = replace(PLAN, evidence=old), replace(PLAN, evidence=new)
    assert before.digest() != after.digest()
    assert what_changed(before, after) == [told]


def test_a_database_that_is_another_one_is_told_first() -> None:
    other = replace(PLAN, target={"database": "shop", "database_oid": 8, "system_identifier": "1"}, evidence={})
    assert what_changed(PLAN, other)[:2] == ["target database_oid: 7 -> 8", "target system_identifier: (absent) -> 1"]


def test_a_record_that_was_edited_is_refused() -> None:
    record = json.loads(json.dumps(PLAN.as_record()))
    record["steps"][0]["undo"][0]["statements"][0]["sql"] = "drop table customers"
    with pytest.raises(ValueError, match="digest"):
        from_record(record)


def test_the_digest_is_the_same_in_every_process() -> None:
    program = "from mend.plan import Plan; print(Plan('s', {}, {'heads': {'a', 'b', 'c', 'd'}}, 'x').digest())"

    def run(seed: str) -> str:
        environ = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run(
            [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
        ).stdout.strip()

    found = {run("1"), run("2"), run("3")}
    assert len(found) == 1
    assert len(found.pop()) == DIGEST_LENGTH


def test_undo_takes_the_done_steps_back_last_first_and_is_another_plan() -> None:
    def step(n: int) -> Step:
        return Step(f"do {n}", (Statement(f"select {n}"),), undo=(Step(f"undo {n}", (Statement(f"select -{n}"),)),))

    plan = replace(PLAN, steps=(step(1), step(2), step(3)), warnings=("w",), options=(Choice("a", "", ""),))
    back = plan.undone(frozenset({0, 2}), evidence={"undoes": "run"})
    assert [s.says for s in back.steps] == ["undo 3", "undo 1"]
    assert (back.evidence, back.options, back.warnings, back.chosen) == ({"undoes": "run"}, (), (), "undo")
    assert back.digest() != plan.undone(frozenset({0}), evidence={"undoes": "run"}).digest()


def test_the_steps_that_cannot_be_taken_back_say_so_if_they_were_done() -> None:
    stuck = Step("add value", (Statement("alter type t add value 'x'"),), irreversible="enums keep their values")
    plan = replace(PLAN, steps=(STEP, stuck))
    assert plan.irreversible(frozenset({0})) == ()
    assert plan.irreversible(frozenset({0, 1})) == ("step 2 (add value): enums keep their values",)


def test_the_sql_of_a_step_is_one_text_to_review() -> None:
    step = Step("", (Statement("select 1;\n"), Statement("select 2")))
    assert step.sql() == "select 1;\nselect 2;"


PURE = (
    *("plan", "database/names", "change/kept", "change/ddl", "change/belonging", "change/renames"),
    *("repairs/versions", "repairs/violations", "repairs/steps"),
)
LIBRARIES = {"__future__", "collections", "dataclasses", "enum", "functools", "itertools", "pandas", "re", "typing"}
FROM_ROOMS_THAT_READ_OR_WRITE = {"journal": {"canonical", "sha256"}, "catalog": {"COLUMNS", "Change", "index_state"}}
ACTS = {
    "open",
    "print",
    "input",
    "exec",
    "eval",
    "exec_driver_sql",
    "execute",
    "read_text",
    "write_text",
    "read_bytes",
    "write_bytes",
    "now",
    "connect",
    "getenv",
}


@pytest.mark.parametrize("room", PURE)
def test_what_makes_plans_neither_reads_nor_writes(room: str) -> None:
    tree = ast.parse((Path(mend.__file__).parent / f"{room}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= LIBRARIES
        elif isinstance(node, ast.ImportFrom):
            names, (package, *inside) = {alias.name for alias in node.names}, str(node.module).split(".")
            own = inside[-1] if inside else ""
            if package == "psycopg":
                assert names == {"sql"}
            elif package == "mend":
                assert not names & {
                    "journal",
                    "catalog",
                    "target",
                    "queries",
                    "execute",
                    "settings",
                    "files",
                    "archive",
                }
                assert names <= FROM_ROOMS_THAT_READ_OR_WRITE.get(own, names)
            else:
                assert package in LIBRARIES
        elif isinstance(node, ast.Call):
            called = (
                node.func.id
                if isinstance(node.func, ast.Name)
                else node.func.attr
                if isinstance(node.func, ast.Attribute)
                else ""
            )
            assert called not in ACTS

"""The verdicts of foreign_key_violation: what it plans, what it sees, what it refuses, and the whole way there and back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fix_runs import Desk, Look, Ran, verdict
from fix_shop import Broken
from mend.batches.deletion import Reference
from mend.constraints import orphans
from mend.constraints.orphaned import Facts, Referring
from mend.database.catalog import Change
from mend.lab.shop import Project
from mend.modes import foreign_key_violation
from mend.plan import Choice, Step
from mend.repairs import foreign_keys
from mend.repairs.steps import Keeper
from mend.repairs.subject import Subject
from mend.values.counting import Count

SLUG = "foreign_key_violation"
Incident = Callable[..., Broken]

# --- plan: pure -------------------------------------------------------------------------------------------------------

PARENT = {
    ("table", "public.p"): "permanent",
    ("column", "public.p.x"): "integer",
    ("column", "public.p.y"): "integer",
    ("column", "public.p.name"): "text",
    ("not_null", "public.p.x"): "not null",
    ("not_null", "public.p.y"): "not null",
    ("not_null", "public.p.name"): "not null",
    ("constraint", "public.p.p_pkey"): "PRIMARY KEY (x, y)",
}
CHILD = {
    ("table", "public.c"): "permanent",
    ("column", "public.c.id"): "integer",
    ("column", "public.c.a"): "integer",
    ("column", "public.c.b"): "integer",
    ("not_null", "public.c.id"): "not null",
    ("constraint", "public.c.c_pkey"): "PRIMARY KEY (id)",
}
SIMPLE = "FOREIGN KEY (a, b) REFERENCES public.p(x, y)"
STANDS = ("constraint", "public.c.fk")
B_NOT_NULL = {("not_null", "public.c.b"): "not null"}


def facts(definition: str = SIMPLE, *, live: dict[tuple[str, str], str] | None = None, **more: Any) -> Facts:
    """What a diagnosis of public.c would have found; nothing stands in the way but its rows."""
    key = foreign_keys.read("public.c.fk", definition)
    assert key is not None
    now = {**PARENT, **CHILD, **(live or {})}
    keeper = Keeper("mend", "k", {"public.p": ("x", "y"), "public.c": ("id",)})
    found = Facts(
        subject=Subject("foreign_key", key.table, key.columns, Change("constraint", key.identity, None, key.definition), now, keeper),
        key=key, count=Count(7, 7, True), missing=Count(3, 3, True), in_part=0, sample=pd.DataFrame(),
        parent_keys=pd.DataFrame(), indexes=pd.DataFrame({"serves": [True]}), bypasses=pd.DataFrame(),
        sizes=pd.DataFrame({"rows_estimate": [100]}), referring=(), levels=(), obstacle="", stub={}, objections={},
        ahead="", others=(), at_most=1000, major=18, given={"workers": 1, "batch_ms": 100, "index": False},
    )  # fmt: skip
    return replace(found, **more)


def choices(found: Facts) -> dict[str, Choice]:
    return {choice.option: choice for choice, _ in orphans.ways(found)}


def steps(found: Facts, option: str) -> tuple[Step, ...]:
    repairs = next(made for choice, made in orphans.ways(found) if choice.option == option)
    return orphans.around(found, repairs)


def sent(made: tuple[Step, ...]) -> list[str]:
    return [statement.sql for step in made for statement in step.statements]


def by_itself(found: Facts) -> str:
    return orphans.by_itself(found, orphans.ways(found))


def test_the_key_stops_orphans_before_they_are_mended_and_is_validated_apart() -> None:
    made = steps(facts(), "set_null")
    assert [(step.kind, step.transactional) for step in made] == [("sql", True), ("backfill", False), ("sql", True)]
    first, *_, last = sent(made)
    assert first == f"alter table public.c add constraint fk {SIMPLE} NOT VALID"
    assert last == "alter table public.c validate constraint fk"
    assert [(lock.relation, lock.mode) for lock in made[0].locks] == [
        ("public.c", "SHARE ROW EXCLUSIVE"),
        ("public.p", "SHARE ROW EXCLUSIVE"),
    ]
    assert made[0].retryable


def test_on_the_way_back_the_key_goes_before_its_orphans_return() -> None:
    repair = steps(facts(), "set_null")[1]
    assert [back.kind for back in repair.undo] == ["sql", "restore"]
    assert repair.undo[0].sql() == "alter table public.c drop constraint if exists fk;"


def test_a_key_that_stands_not_valid_is_not_made_again_and_comes_back_with_undo() -> None:
    made = steps(facts(live={STANDS: f"{SIMPLE} NOT VALID"}), "set_null")
    assert [step.kind for step in made] == ["backfill", "sql"]
    assert made[0].undo[-1].sql() == f"alter table public.c add constraint fk {SIMPLE} NOT VALID;"


def test_clearing_is_taken_without_being_named_and_deleting_never_is() -> None:
    assert by_itself(facts()) == "set_null"
    assert by_itself(facts(live={**B_NOT_NULL, ("not_null", "public.c.a"): "not null"})) == "stop"


def test_where_one_null_is_enough_the_columns_that_may_be_null_are_cleared() -> None:
    found = facts(live=B_NOT_NULL)
    assert orphans.cleared(found.key, found.live) == ("a",)
    full = facts(f"{SIMPLE} MATCH FULL", live=B_NOT_NULL)
    assert orphans.cleared(full.key, full.live) == ()
    assert "may not be NULL" in choices(full)["set_null"].why_not


def test_the_columns_that_the_key_itself_would_clear_are_cleared() -> None:
    found = facts(f"{SIMPLE} ON DELETE SET NULL (b)")
    assert orphans.cleared(found.key, found.live) == ("b",)


def test_a_column_of_a_partition_is_not_null_by_its_parent() -> None:
    live = {("partition", "public.c"): "public.whole FOR VALUES IN (1)", ("not_null", "public.whole.b"): "not null"}
    assert orphans.required("public.c", "b", live)
    assert not orphans.required("public.c", "a", live)


def test_a_stub_lacks_what_nothing_gives_it() -> None:
    assert "wants values for name" in choices(facts())["stub"].why_not
    assert choices(facts(live={("default", "public.p.name"): "'?'::text"}))["stub"].possible


def test_rows_that_are_null_in_part_have_no_parent_that_could_be_made_up() -> None:
    found = facts(f"{SIMPLE} MATCH FULL", in_part=2, live={("default", "public.p.name"): "''::text"})
    assert "NULL in part" in choices(found)["stub"].why_not


def test_what_refers_to_the_orphans_and_does_not_pass_bars_their_delete() -> None:
    own = Reference("public.g.fk", "public.g", ("c_id",), "public.c", ("id",), "NO ACTION", ("c_id",))
    barred = choices(facts(referring=(Referring(own, Count(4, 4, True), True),)))["delete"]
    assert (barred.possible, "4 rows of public.g" in barred.why_not) == (False, True)
    assert choices(facts(referring=(Referring(own, Count(0, 4, True), True),)))["delete"].possible


def test_an_unindexed_reference_is_said_to_make_a_delete_slow() -> None:
    own = Reference("public.g.fk", "public.g", ("c_id",), "public.c", ("id",), "CASCADE", ("c_id",))
    assert "public.g (c_id)" in choices(facts(referring=(Referring(own, Count(4, 4, True), False),)))["delete"].costs


def test_without_orphans_there_is_nothing_to_choose() -> None:
    found = facts(count=Count(0, 0, True))
    assert (list(choices(found)), by_itself(found)) == (["validate", "stop"], "validate")
    assert len(steps(found, "validate")) == 2


def test_a_valid_key_with_orphans_is_left_alone_unless_asked_for_since_they_cannot_come_back() -> None:
    found = facts(live={STANDS: SIMPLE})
    assert by_itself(found) == "stop"
    (repair,) = steps(found, "set_null")
    assert "refuses the orphans back" in repair.irreversible


def test_few_orphans_of_a_large_table_are_listed_once() -> None:
    few = facts(sizes=pd.DataFrame({"rows_estimate": [50_000_000]}))
    assert steps(few, "set_null")[1].arguments["work"].startswith("select t.id as k1 from only public.c as t where")
    assert steps(facts(), "set_null")[1].arguments["work"] == ""


def test_an_index_is_built_only_where_it_is_asked_for_and_missing() -> None:
    missing = pd.DataFrame({"serves": [False]})
    given = {"workers": 1, "batch_ms": 100, "index": True}
    assert not any("index" in text for text in sent(steps(facts(indexes=missing), "set_null")))
    made = steps(facts(indexes=missing, given=given), "set_null")
    assert "create index concurrently ix_c_a_b on public.c (a, b)" in sent(made[2:3])
    assert not any("index" in text for text in sent(steps(facts(given=given), "set_null")))


def test_before_18_a_partitioned_table_gets_its_key_from_its_partitions() -> None:
    split = {
        ("table", "public.c"): "permanent partition by LIST (b)",
        ("table", "public.c1"): "permanent",
        ("table", "public.c2"): "permanent",
        ("partition", "public.c1"): "public.c FOR VALUES IN (1)",
        ("partition", "public.c2"): "public.c DEFAULT",
    }
    key = facts().key
    made = foreign_keys.making(key, {**PARENT, **CHILD, **split}, major=17)
    assert sent(made.stops) == [f"alter table public.c{n} add constraint fk {SIMPLE} NOT VALID" for n in (1, 2)]
    assert sent(made.proof) == [
        "alter table public.c1 validate constraint fk",
        "alter table public.c2 validate constraint fk",
        f"alter table public.c add constraint fk {SIMPLE}",
    ]
    assert len(foreign_keys.making(key, {**PARENT, **CHILD, **split}, major=18).proof) == 1


# --- diagnose ---------------------------------------------------------------------------------------------------------

ORPHANS = {"orphaned_orders": 20, "composite_key": 8, "self_reference": 2}
LAB = [*ORPHANS, "unindexed_parent"]


def check(ran: Ran, name: str) -> dict[str, Any]:
    return ran.check(name)


def test_a_healthy_shop_is_healthy(desk: Desk, healthy: Broken) -> None:
    ran = desk.plan(replace(healthy, slug=SLUG))
    assert ran.code == 0, ran.err
    assert ran.document["plan"]["steps"] == []


def test_a_key_that_stands_and_holds_is_healthy(desk: Desk, healthy: Broken) -> None:
    ran = desk.plan(replace(healthy, slug=SLUG), table="orders", columns="coupon_code")
    assert ran.code == 0, ran.err
    assert {c["verdict"] for c in ran.document["checks"]} == {"healthy"}
    assert "stands and is valid" in check(ran, "wanted")["says"]


@pytest.mark.parametrize("scenario", LAB)
def test_triage_names_it_first_with_table_columns_constraint_and_parent(
    desk: Desk, broken: Incident, scenario: str
) -> None:
    incident = broken(scenario, slug=SLUG)
    words = ("-t", incident.parameters["target"], "-a", str(incident.alembic_ini))
    ran = desk.here("triage", *words, "--error-file", str(incident.error_file))
    first = ran.document["findings"][0]
    wanted = {
        "orphaned_orders": ("orders", "customer_id", "fk_orders_customer_id", "customers (id)"),
        "composite_key": ("shipments", "order_id, line_no", "fk_shipments_order_items", "order_items (order_id, line_no)"),
        "self_reference": ("categories", "parent_id", "fk_categories_parent_id", "categories (id)"),
        "unindexed_parent": ("orders", "customer_email", "fk_orders_customer_email", "customers (email)"),
    }[scenario]  # fmt: skip
    assert first["slug"] == SLUG
    given = first["parameters"]
    assert (given["table"], given["columns"], given["constraint"], given["parent"]) == wanted
    assert f"plan {SLUG}" in first["command"]
    named = desk.plan(incident, **given)
    assert named.code == 2, named.err


@pytest.mark.parametrize("scenario", ORPHANS)
def test_the_orphans_of_the_next_revision_are_found_without_any_name(
    desk: Desk, broken: Incident, scenario: str
) -> None:
    ran = desk.plan(broken(scenario, slug=SLUG), revision="")
    assert ran.code == 2, ran.err
    found = check(ran, "orphans")
    assert found["verdict"] == "found"
    assert sum(row["rows"] for row in found["sample"]) == ORPHANS[scenario]
    assert check(ran, "parent_key")["verdict"] == "healthy"


def test_what_hangs_on_the_orphans_is_counted_to_any_depth(desk: Desk, broken: Incident) -> None:
    ran = desk.plan(broken("orphaned_orders", slug=SLUG))
    found = {row["table"]: row for row in check(ran, "references")["sample"]}
    assert {table: row["on_delete"] for table, row in found.items()} == {
        "public.order_items": "CASCADE",
        "public.shipments": "NO ACTION",
        "public.payments": "NO ACTION",
    }
    assert all(row["rows"] > 0 for row in found.values())
    assert "public.payments" in ran.options["delete"]


def test_the_depth_below_an_orphan_is_told(desk: Desk, broken: Incident) -> None:
    ran = desk.plan(broken("self_reference", slug=SLUG))
    assert "Further rows below them, by depth: 2, 2, 2" in check(ran, "orphans")["says"]


def test_a_missing_index_is_told_and_built_only_when_asked_for(desk: Desk, broken: Incident) -> None:
    incident = broken("composite_key", slug=SLUG)
    ran = desk.plan(incident, option="delete")
    assert "None does" in check(ran, "index")["says"]
    assert not any("create index" in step["sql"] for step in ran.document["plan"]["steps"])
    asked = desk.plan(incident, option="delete", index="true")
    assert any("create index concurrently" in step["sql"] for step in asked.document["plan"]["steps"])


@pytest.mark.parametrize("given", [{}, {"table": "orders", "columns": "customer_email", "parent": "customers (email)"}])
def test_a_parent_that_is_not_unique_is_diagnosed_and_refused_with_the_remedy(
    desk: Desk, broken: Incident, given: dict[str, str]
) -> None:
    incident = broken("unindexed_parent", slug=SLUG)
    ran = refused(desk, incident, **given)
    assert ran.code == 2, ran.err
    assert check(ran, "parent_key")["verdict"] == "found"
    assert check(ran, "parent_key")["sample"][0]["why_not"] == "it is not unique"
    assert "Make it unique first" in ran.document["plan"]["next"]
    assert "primary key (id)" in ran.document["plan"]["next"]


def refused(desk: Desk, incident: Broken, **given: str) -> Ran:
    """A plan that must not come about, and write nothing."""
    look = Look(incident.url)
    before = look.rows(), look.catalog(), look.written()
    ran = desk.plan(incident, **given)
    assert (look.rows(), look.catalog(), look.written()) == before
    assert ran.document.get("plan") is None or ran.document["plan"]["steps"] == []
    return ran


# --- the whole way ----------------------------------------------------------------------------------------------------

LINES = "product_id = 1, quantity = 1, unit_price = 0.00"
WAYS = [
    ("orphaned_orders", "", {}),
    ("orphaned_orders", "stub", {"stub": "email = 'unknown@example.invalid', full_name = 'erased'"}),
    ("composite_key", "delete", {"index": "true"}),
    ("composite_key", "stub", {"stub": LINES}),
    ("self_reference", "", {}),
    ("self_reference", "delete", {}),
    ("self_reference", "stub", {"stub": "name = 'made up'"}),
]


@pytest.mark.parametrize(("scenario", "option", "given"), WAYS)
def test_from_the_incident_to_a_mended_shop_and_back(
    desk: Desk, broken: Incident, scenario: str, option: str, given: dict[str, str]
) -> None:
    incident = broken(scenario, slug=SLUG)
    look = Look(incident.url)
    rows, catalog, version, written = look.rows(), look.catalog(), look.version(), look.written()
    planned = desk.plan(incident, option=option, **given)
    assert planned.code == 2, planned.err
    assert planned.document["plan"]["chosen"] == option or "set_null"
    assert look.written() == written, "a dry run writes nothing"

    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert verdict(applied.run_id) == "whole"
    assert look.version() == [incident.parameters["revision"]]
    upgraded = incident.alembic("upgrade", "head")
    assert upgraded.exit_code == 0, upgraded
    again = desk.plan(incident)
    assert again.code == 0, again.err
    assert {c["verdict"] for c in again.document["checks"]} == {"healthy"}

    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert (look.rows(), look.catalog(), look.version()) == (rows, catalog, version)


def test_the_notebook_alone_plans_and_with_the_digest_applies(desk: Desk, broken: Incident) -> None:
    incident = broken("orphaned_orders", slug=SLUG)
    planned = desk.papermill(incident)
    assert planned.code == 0, planned.err
    assert planned.document["plan"]["chosen"] == "set_null"
    applied = desk.papermill(incident, dry_run=False, approve=planned.digest)
    assert applied.code == 0, applied.err
    assert applied.document["outcome"] == "completed"


def test_plain_papermill_runs_it_without_parameters_in_an_empty_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lab_of_its_own: Path
) -> None:
    notebook = Path(foreign_key_violation.__file__).parents[3] / "runbooks" / f"{SLUG}.ipynb"
    monkeypatch.setenv("MEND_OUTPUTS", str(tmp_path / "outputs"))
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "--no-progress-bar", str(notebook), str(tmp_path / "out.ipynb")],
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run_id,) = [path.name for path in (tmp_path / "outputs").iterdir()]
    assert verdict(run_id) == "whole"


# --- databases made by hand, without a project -------------------------------------------------------------------------


@pytest.fixture
def by_hand(database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Broken]:
    """``by_hand(statements)``: a target of its own, and no Alembic project."""

    def make(statements: str) -> Broken:
        monkeypatch.setenv("BY_HAND_URL", database)
        with Look(database).connect() as conn:
            conn.execute(statements.encode())
        return Broken(Project(tmp_path, database), tmp_path / "error.txt", {"target": "env:BY_HAND_URL"}, SLUG)

    return make


def there_and_back(desk: Desk, made: Broken, wanted: str, **given: str) -> Ran:
    """Plan, apply, undo; the key must hold in between, and afterwards everything be as it was."""
    look = Look(made.url)
    rows, catalog = look.rows(), look.catalog()
    planned = desk.plan(made, **given)
    assert planned.code == 2, planned.err
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert [text for (kind, name), text in look.catalog().items() if (kind, name) == ("constraint", wanted)] != []
    assert look.query(
        "select count(*) from pg_constraint where contype = 'f' and not convalidated and conparentid = 0"
    ) == [(0,)]
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert (look.rows(), look.catalog()) == (rows, catalog)
    return applied


TWO = """
    create table p (id int primary key, name text not null default '?');
    create table c (id int primary key, p_id int, note text);
    insert into p select n from generate_series(1, 50) as n;
    insert into c select n, case when n % 5 = 0 then 1000 + n else 1 + n % 50 end from generate_series(1, 500) as n;
"""
NAMED = {"table": "c", "columns": "p_id", "parent": "p"}


@pytest.mark.parametrize("option", ["set_null", "delete", "stub"])
def test_without_a_project_the_key_is_made_all_the_same(
    desk: Desk, by_hand: Callable[..., Broken], option: str
) -> None:
    there_and_back(desk, by_hand(TWO), "public.c.fk_c_p_id", option=option, **NAMED)


def test_a_key_that_somebody_left_not_valid_is_taken_up_and_given_back_not_valid(
    desk: Desk, by_hand: Callable[..., Broken]
) -> None:
    made = by_hand(TWO + "alter table c add constraint theirs foreign key (p_id) references p not valid")
    ran = desk.plan(made, table="c", columns="p_id")
    assert "NOT VALID" in check(ran, "wanted")["says"]
    there_and_back(desk, made, "public.c.theirs", table="c", columns="p_id")


def test_an_orphan_can_be_updated_while_the_key_waits_unless_its_reference_is(by_hand: Callable[..., Broken]) -> None:
    made = by_hand(TWO + "alter table c add constraint theirs foreign key (p_id) references p not valid")
    look = Look(made.url)
    look.execute("update c set note = 'still works' where id = 5")
    with pytest.raises(Exception, match="violates foreign key"):
        look.execute("update c set p_id = 2000 where id = 5")


HOSTILE = """
    create schema "We ird";
    create table "We ird"."P, (x)" ("k, ""1" text primary key);
    create table "We ird"."c;--" ("ID" bigint generated always as identity primary key, "p (k)" text, "100%%" int);
    insert into "We ird"."P, (x)" values ('a'), ('it''s');
    insert into "We ird"."c;--" ("p (k)") values ('a'), ('it''s'), ('gone; drop'), (null), ('%s'), (':x');
"""


@pytest.mark.parametrize("option", ["set_null", "delete", "stub"])
def test_hostile_names_and_values(desk: Desk, by_hand: Callable[..., Broken], option: str) -> None:
    given = {"table": '"We ird"."c;--"', "columns": '"p (k)"', "parent": '"We ird"."P, (x)"', "constraint": 'f"k %s'}
    there_and_back(desk, by_hand(HOSTILE), '"We ird"."c;--"."f""k %s"', option=option, **given)


FULL = """
    create table p (x int, y int, primary key (x, y));
    create table c (id int primary key, a int, b int);
    insert into p values (1, 1), (1, 2);
    insert into c values (1, 1, 1), (2, 1, 2), (3, null, null), (4, 1, null), (5, null, 7), (6, 9, 9), (7, 1, 9);
    alter table c add constraint fk foreign key (a, b) references p match full {tail} not valid;
"""


@pytest.mark.parametrize("tail", ["", "deferrable initially deferred", "on delete cascade"])
@pytest.mark.parametrize("option", ["set_null", "delete"])
def test_match_full_takes_a_row_that_is_null_in_part_for_an_orphan(
    desk: Desk, by_hand: Callable[..., Broken], option: str, tail: str
) -> None:
    made = by_hand(FULL.format(tail=tail))
    ran = desk.plan(made, table="c", columns="a, b")
    assert "4 rows" in check(ran, "orphans")["says"]
    assert "2 of them are NULL in part" in check(ran, "orphans")["says"]
    assert "NULL in part" in ran.options["stub"]
    there_and_back(desk, made, "public.c.fk", table="c", columns="a, b", option=option)


def test_match_simple_passes_a_row_that_is_null_in_part(desk: Desk, by_hand: Callable[..., Broken]) -> None:
    ran = desk.plan(by_hand(FULL.format(tail="").replace("match full", "")), table="c", columns="a, b")
    assert "2 rows" in check(ran, "orphans")["says"]


TREE = """
    create table t (id int primary key, up int, note text);
    create table leaf (id int primary key, t_id int references t on delete {leaf});
    create index on t (up);
    create index on leaf (t_id);
    insert into t select n, n - 1 from generate_series(2, {deep}) as n;
    insert into t values (100, 101), (101, 102), (102, 100), (200, null), (201, 200), (300, 999);
    insert into leaf select n, n from generate_series(2, {deep}) as n;
    insert into leaf values (100, 100), (201, 201);
"""


def tree(leaf: str, rule: str, *, deep: int) -> str:
    key = f"alter table t add constraint fk foreign key (up) references t on delete {rule} not valid"
    return TREE.format(leaf=leaf, deep=deep) + key


@pytest.mark.parametrize(("rule", "deep"), [("no action", 60), ("restrict", 60), ("cascade", 7)])
@pytest.mark.parametrize("leaf", ["cascade", "set null"])
def test_a_chain_is_deleted_to_its_end_and_a_circle_is_left_alone(
    desk: Desk, by_hand: Callable[..., Broken], rule: str, deep: int, leaf: str
) -> None:
    made = by_hand(tree(leaf, rule, deep=deep))
    look = Look(made.url)
    rows = look.rows()
    applied = desk.apply(desk.plan(made, table="t", columns="up", option="delete"))
    assert applied.code == 0, applied.err
    assert [row[0] for row in look.query("select id from t order by id")] == [100, 101, 102, 200, 201]
    assert look.query("select count(*) from leaf where t_id is not null") == [(2,)]
    undone = desk.here("undo", applied.run_id)
    assert (undone.code, look.rows()) == (0, rows), undone.err


def test_a_chain_too_long_for_a_key_that_cascades_is_refused(desk: Desk, by_hand: Callable[..., Broken]) -> None:
    made = by_hand(tree("cascade", "cascade", deep=40))
    ran = refused(desk, made, table="t", columns="up", option="delete")
    assert (ran.code, "40 deep" in ran.err or "39 deep" in ran.err) == (3, True), ran.err


def test_rows_that_the_wanted_key_would_release_are_released_and_given_back(
    desk: Desk, by_hand: Callable[..., Broken]
) -> None:
    made = by_hand(tree("cascade", "set null", deep=9))
    there_and_back(desk, made, "public.t.fk", table="t", columns="up", option="delete")


GRAND = """
    create table p (id int primary key);
    create table c (id int primary key, p_id int);
    create table g (id int primary key, c_id int references c on delete cascade);
    create table gg (id int primary key, g_id int references g on delete set null, keep text);
    create index on c (p_id); create index on g (c_id); create index on gg (g_id);
    insert into p select n from generate_series(1, 9) as n;
    insert into c select n, n from generate_series(1, 20) as n;
    insert into g select n, 1 + n % 20 from generate_series(1, 60) as n;
    insert into gg select n, 1 + n % 60, 'k' from generate_series(1, 100) as n;
"""


def test_grandchildren_go_along_with_copies_of_them(desk: Desk, by_hand: Callable[..., Broken]) -> None:
    made = by_hand(GRAND)
    applied = there_and_back(desk, made, "public.c.fk_c_p_id", option="delete", **NAMED)
    assert [row["rows"] for row in check(applied, "references")["sample"]] == [33, 55]


def test_a_child_that_comes_meanwhile_keeps_its_parent(desk: Desk, by_hand: Callable[..., Broken]) -> None:
    made = by_hand(GRAND + "alter table g drop constraint g_c_id_fkey, add foreign key (c_id) references c")
    ran = desk.plan(made, option="delete", **NAMED)
    assert ran.code == 3
    assert "public.g" in ran.err


SPLIT = """
    create table p (id int primary key);
    create table c (id int, day int, p_id int, primary key (id, day)) partition by list (day);
    create table c1 partition of c for values in (1);
    create table c2 partition of c for values in (2) partition by list (id);
    create table c2_all partition of c2 default;
    insert into p select n from generate_series(1, 9) as n;
    insert into c select n, 1 + n % 2, n from generate_series(1, 40) as n;
"""


@pytest.mark.parametrize("option", ["set_null", "delete", "stub"])
def test_a_partitioned_table_gets_its_key_on_every_version(
    desk: Desk, by_hand: Callable[..., Broken], option: str
) -> None:
    there_and_back(desk, by_hand(SPLIT), "public.c.fk_c_p_id", option=option, **NAMED)


def test_a_partitioned_parent_can_be_referred_to(desk: Desk, by_hand: Callable[..., Broken]) -> None:
    made = by_hand(
        "create table p (id int primary key, name text) partition by range (id); create table p1 partition of p for values from (0) to (100);"
        "create table p2 partition of p default; create table c (id int primary key, p_id int);"
        "insert into p values (1), (200); insert into c values (1, 1), (2, 200), (3, 50), (4, 400)"
    )
    there_and_back(desk, made, "public.c.fk_c_p_id", option="stub", **NAMED)


CITEXT = """
    create schema ext; create extension citext schema ext;
    create table p (code ext.citext primary key); create table c (id int primary key, p_id ext.citext);
    insert into p values ('Abc'); insert into c values (1, 'ABC'), (2, 'abd'), (3, 'ABD');
"""


def test_values_are_compared_as_the_key_compares_them(desk: Desk, by_hand: Callable[..., Broken]) -> None:
    made = by_hand(CITEXT)
    ran = desk.plan(made, **NAMED)
    assert "2 rows refer to" in check(ran, "orphans")["says"]
    there_and_back(desk, made, "public.c.fk_c_p_id", option="stub", **NAMED)


def test_a_table_without_a_primary_key_is_mended_and_the_plan_says_that_it_cannot_be_taken_back(
    desk: Desk, by_hand: Callable[..., Broken]
) -> None:
    made = by_hand(TWO + "alter table c drop constraint c_pkey")
    planned = desk.plan(made, **NAMED)
    assert any("no key" in step["irreversible"] for step in planned.document["plan"]["steps"])
    assert desk.apply(planned).code == 0


def test_triggers_that_are_off_and_replica_sessions_are_named(desk: Desk, by_hand: Callable[..., Broken]) -> None:
    made = by_hand(
        TWO
        + "alter table c add constraint theirs foreign key (p_id) references p not valid; alter table c disable trigger all;"
        "do $$ begin execute format('alter database %I set session_replication_role = replica', current_database()); end $$"
    )
    found = check(desk.plan(made, table="c", columns="p_id"), "bypasses")
    assert found["verdict"] == "found"
    assert {row["kind"] for row in found["sample"]} == {"trigger", "setting"}


def test_samples_are_masked_unless_asked_otherwise(desk: Desk, by_hand: Callable[..., Broken]) -> None:
    made = by_hand(HOSTILE)
    given = {"table": '"We ird"."c;--"', "columns": '"p (k)"', "parent": '"We ird"."P, (x)"'}
    assert "gone" not in str(check(desk.plan(made, **given), "orphans")["sample"])
    assert "gone" in str(check(desk.plan(made, mask="false", **given), "orphans")["sample"])


# --- bad input --------------------------------------------------------------------------------------------------------

REFUSED = [
    ({"table": "nowhere", "columns": "p_id", "parent": "p"}, "there is none"),
    ({"table": "c", "columns": "nothing", "parent": "p"}, "no column 'nothing'"),
    ({"table": "c", "columns": "p_id"}, "Name what it should refer to"),
    ({"table": "c", "columns": "p_id", "parent": "gone"}, "there is none"),
    ({"table": "c", "columns": "p_id", "parent": "p(gone)"}, "no column 'gone'"),
    ({"table": "c", "columns": "p_id, note", "parent": "p"}, "cannot refer to 1"),
    ({"constraint": "fk_nothing"}, "fk_nothing"),
    ({**NAMED, "option": "set_nul"}, "set_null, stub, delete, stop"),
    ({**NAMED, "option": "validate"}, "option is 'validate'"),
    ({**NAMED, "stub": "name = (delete from p returning 'x')"}, "name"),
    ({**NAMED, "stub": "name = 'x'); drop table p; --"}, ""),
    ({**NAMED, "stub": "id = 7"}, "comes from the rows"),
    ({**NAMED, "stub": "name = t.name"}, "reads columns"),
    ({**NAMED, "stub": "nothing = 1"}, "nothing"),
    ({**NAMED, "stub": "name = null", "option": "stub"}, "NULL"),
    ({**NAMED, "stub": "name = repeat('x', 9)", "option": "stub"}, "long"),
]


@pytest.mark.parametrize(("given", "says"), REFUSED)
def test_bad_input_is_refused_and_nothing_written(
    desk: Desk, by_hand: Callable[..., Broken], given: dict[str, str], says: str
) -> None:
    made = by_hand(TWO.replace("name text", "name varchar(8)"))
    ran = refused(desk, made, **given)
    assert ran.code in (1, 3), ran.out
    assert says in ran.err


def test_columns_that_may_not_be_null_are_not_cleared(desk: Desk, by_hand: Callable[..., Broken]) -> None:
    made = by_hand(TWO + "alter table c alter p_id set not null")
    ran = refused(desk, made, option="set_null", **NAMED)
    assert (ran.code, "p_id of public.c may not be NULL" in ran.err) == (3, True)
    assert refused(desk, made, **NAMED).document["plan"]["chosen"] == "stop"
    assert desk.plan(made, stub="name = 'x'", **NAMED).document["plan"]["chosen"] == "stub"


def test_types_that_cannot_be_compared_are_said(desk: Desk, by_hand: Callable[..., Broken]) -> None:
    made = by_hand(
        "create table p (id int primary key); create table c (id int primary key, p_id text); insert into c values (1, 'x')"
    )
    ran = refused(desk, made, **NAMED)
    assert ran.code == 1, ran.err
    assert check(ran, "orphans")["verdict"] == "could_not_check"
    assert "operator does not exist" in ran.document["plan"]["next"]


def test_a_role_that_owns_nothing_is_refused(
    desk: Desk, by_hand: Callable[..., Broken], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = by_hand(TWO + "do $$ begin if not exists (select from pg_roles where rolname = 'reader') then create role reader login; end if; end $$;"
                   "grant select on all tables in schema public to reader")  # fmt: skip
    monkeypatch.setenv(
        "BY_HAND_URL",
        made.url.replace("postgresql+psycopg://", "postgresql+psycopg://reader@").replace(
            "reader@postgres@", "reader@"
        ),
    )
    ran = refused(desk, made, option="set_null", **NAMED)
    assert ran.code == 3, ran.err
    assert "ownership of public.c" in ran.err


@pytest.mark.parametrize("own", ["primary key", ""])
def test_a_stub_that_rows_have_come_to_need_since_stays_and_the_undo_says_so(
    desk: Desk, by_hand: Callable[..., Broken], own: str
) -> None:
    made = by_hand(TWO.replace("c (id int primary key,", f"c (id int {own},"))
    look = Look(made.url)
    applied = desk.apply(desk.plan(made, option="stub", **NAMED))
    look.execute(
        "insert into c values (900, 1005, 'came since')",
        "delete from c where id = 10",
        "insert into c values (901, 1010, 'came for another')",
        "update c set p_id = 1015 where id = 20",
    )
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 2, undone.err
    assert look.query("select id from p where id > 1000 order by 1") == [(1005,), (1010,), (1015,)]
    orphans = "select count(*) from c where p_id not in (select id from p) and id {} 900"
    assert (look.query(orphans.format("<")), look.query(orphans.format(">="))) == ([(96,)], [(0,)])
    (left,) = undone.document["conflicts"]
    assert (left["table"], left["rows"], left["conflicts"]) == ("public.p", 97, 3)
    assert left["sample"][0] == {"key": ["1005"], "reason": "rows that came since refer to it"}
    assert undone.document["outcome"] == "completed"
    said = "3 rows of public.p did not go back: 1005 (rows that came since refer to it); 1010"
    assert said in undone.document["says"]
    assert json.loads((undone.record.path / "record.json").read_text())["conflicts"] == [left]
    assert "Verified: healthy" not in undone.record.path.joinpath("report.html").read_text()


def test_a_sequence_that_will_give_out_the_made_up_keys_again_is_named(
    desk: Desk, by_hand: Callable[..., Broken]
) -> None:
    made = by_hand(TWO.replace("p (id int", "p (id serial"))
    warned = desk.plan(made, option="stub", **NAMED).document["plan"]["warnings"]
    assert any("public.p_id_seq has not come to the missing keys yet" in text for text in warned)


def test_a_revision_that_only_reads_rows_is_left_to_alembic_and_goes_on_once_the_rows_are_mended(
    desk: Desk, broken: Incident, edit: Callable[[Path, str, str], None]
) -> None:
    incident = broken("orphaned_orders", slug=SLUG)
    (path,) = (incident.project.directory / "migrations" / "versions").glob("9ad41c6f02e8*")
    edit(
        path,
        "    op.create_foreign_key(",
        '    op.get_bind().execute(sa.text("SELECT count(*) FROM orders")).scalar()\n    op.create_foreign_key(',
    )
    look = Look(incident.url)
    rows, catalog = look.rows(), look.catalog()
    planned = desk.plan(incident)
    assert "The key is left to the revision" in planned.document["plan"]["next"]
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert ("constraint", "public.orders.fk_orders_customer_id") not in look.catalog()
    undone = desk.here("undo", applied.run_id)
    assert (undone.code, look.rows(), look.catalog()) == (0, rows, catalog), undone.err
    assert desk.apply(desk.plan(incident)).code == 0
    assert incident.alembic("upgrade", "head").exit_code == 0


def test_a_revision_that_more_rows_are_in_the_way_of_is_not_finished_with_one_key(
    desk: Desk, broken: Incident, edit: Callable[[Path, str, str], None]
) -> None:
    incident = broken("orphaned_orders", slug=SLUG)
    (path,) = (incident.project.directory / "migrations" / "versions").glob("9ad41c6f02e8*")
    more = '    op.create_unique_constraint("uq_orders_currency", "orders", ["currency"])\n'
    edit(path, 'ondelete="SET NULL"\n    )\n', f'ondelete="SET NULL"\n    )\n{more}')
    planned = desk.plan(incident)
    assert "uq_orders_currency" in planned.document["plan"]["next"]
    assert desk.apply(planned).code == 0
    assert Look(incident.url).version() == ["5e0b93d7a1f4"]


def test_a_validation_that_fails_in_a_revision_of_its_own_is_mended_too(
    desk: Desk, broken: Incident, edit: Callable[[Path, str, str], None]
) -> None:
    incident = broken("orphaned_orders", slug=SLUG)
    folder = incident.project.directory / "migrations" / "versions"
    (path,) = folder.glob("9ad41c6f02e8*")
    edit(path, 'ondelete="SET NULL"', 'ondelete="SET NULL", postgresql_not_valid=True')
    assert incident.alembic("upgrade", "head").exit_code == 0
    validates = 'op.execute("ALTER TABLE orders VALIDATE CONSTRAINT fk_orders_customer_id")'
    text = NEW.replace("b04e7c6f21d9", "9ad41c6f02e8").replace("op.{made}", validates).replace("    {more}", "")
    (folder / "feedbeef0001_validate.py").write_text(text)
    tried = incident.alembic("upgrade", "head")
    assert (tried.exit_code, "ForeignKeyViolation" in tried.output) == (1, True)
    look = Look(incident.url)
    rows, catalog, version = look.rows(), look.catalog(), look.version()
    applied = desk.apply(desk.plan(incident, revision=""))
    assert applied.code == 0, applied.err
    assert look.version() == ["feedbeef0001"]
    assert incident.alembic("upgrade", "head").exit_code == 0
    undone = desk.here("undo", applied.run_id)
    assert (undone.code, look.rows(), look.catalog(), look.version()) == (0, rows, catalog, version), undone.err


NEW = """
import sqlalchemy as sa
from alembic import op

revision = "feedbeef0001"
down_revision = "b04e7c6f21d9"


def upgrade():
    op.{made}
    {more}
"""


@pytest.mark.parametrize(
    ("made", "more", "code"),
    [
        ('create_table("news", sa.Column("customer_id", sa.Integer(), sa.ForeignKey("customers.id")))', "", 0),
        ('add_column("orders", sa.Column("c_id", sa.Integer(), sa.ForeignKey("customers.id")))', "", 0),
        ('add_column("orders", sa.Column("c_id", sa.Integer()))',
         'op.execute("UPDATE orders SET c_id = 1")\n    op.create_foreign_key("fk_new", "orders", "customers", ["c_id"], ["id"])', 1),
    ],
)  # fmt: skip
def test_a_key_on_what_the_revision_itself_makes_has_no_orphans_yet(
    desk: Desk, healthy: Broken, made: str, more: str, code: int
) -> None:
    path = healthy.project.directory / "migrations" / "versions" / "feedbeef0001_next.py"
    path.write_text(NEW.format(made=made, more=more))
    ran = desk.plan(replace(healthy, slug=SLUG))
    assert ran.code == code, ran.err
    assert "itself" in check(ran, "diagnosis")["says"]


def test_a_run_that_died_behind_the_key_is_gone_on_with(desk: Desk, broken: Incident) -> None:
    incident = broken("orphaned_orders", slug=SLUG)
    look = Look(incident.url)
    rows, catalog = look.rows(), look.catalog()
    planned = desk.plan(incident)
    died = desk.crash("apply", planned.run_id, "--approve", planned.digest, kind="step_done", nth=2, after=True)
    assert look.catalog()["constraint", "public.orders.fk_orders_customer_id"].endswith("NOT VALID")
    resumed = desk.here("resume", died)
    assert resumed.code == 0, resumed.err
    undone = desk.here("undo", died)
    assert (undone.code, look.rows(), look.catalog()) == (0, rows, catalog), undone.err


def test_a_key_that_a_dead_run_left_is_taken_up_by_a_new_plan(desk: Desk, broken: Incident) -> None:
    incident = broken("orphaned_orders", slug=SLUG)
    planned = desk.plan(incident)
    desk.crash("apply", planned.run_id, "--approve", planned.digest, kind="step_done", nth=2, after=True)
    again = desk.plan(incident)
    assert again.code == 2, again.err
    texts = [step["sql"] for step in again.document["plan"]["steps"]]
    assert not any("add constraint" in text for text in texts)
    assert desk.apply(again).code == 0
    assert incident.alembic("upgrade", "head").exit_code == 0


def test_a_plan_is_stale_once_the_tables_changed(desk: Desk, by_hand: Callable[..., Broken]) -> None:
    made = by_hand(TWO)
    planned = desk.plan(made, **NAMED)
    Look(made.url).execute("alter table p add column more int")
    ran = desk.apply(planned)
    assert (ran.code, "public.p.more" in ran.err) == (3, True)


def test_rows_that_come_before_the_key_stands_are_mended_too(desk: Desk, by_hand: Callable[..., Broken]) -> None:
    made = by_hand(TWO)
    planned = desk.plan(made, **NAMED)
    Look(made.url).execute("insert into c values (9001, 7777)")
    assert desk.apply(planned).code == 0
    assert Look(made.url).query("select p_id from c where id = 9001") == [(None,)]

"""The verdicts of rollback_failure: three incidents mended and taken back, and every way in which a way back goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fix_runs import Desk, Look, Ran
from fix_shop import Broken

SLUG = "rollback_failure"
HEAD = "b04e7c6f21d9"
Incident = Callable[..., Broken]
Edit = Callable[[Path, str, str], None]
Facets = dict[tuple[str, str], str]


@pytest.fixture
def hung(broken: Incident) -> Broken:
    return broken("dependents", slug=SLUG)


@pytest.fixture
def raising(broken: Incident) -> Broken:
    return broken("not_implemented", slug=SLUG)


@pytest.fixture
def left(broken: Incident) -> Broken:
    return broken("enum_left_behind", slug=SLUG)


def state(look: Look) -> tuple[object, Facets, object]:
    return look.rows(), look.catalog(), look.version()


def round_trip(
    desk: Desk, incident: Broken, planned: Ran, meanwhile: Callable[[Look, Facets], None] = lambda look, before: None
) -> Ran:
    """Apply, look, undo, and find everything as it was, byte for byte."""
    look = Look(incident.url)
    before = state(look)
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    meanwhile(look, before[1])
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert state(look) == before
    return applied


# --- triage, healthy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "told"), [("dependents", ""), ("not_implemented", HEAD), ("enum_left_behind", "")]
)
def test_triage_names_it_first(desk: Desk, broken: Incident, scenario: str, told: str) -> None:
    incident = broken(scenario, slug=SLUG)
    words = ["triage", "-t", incident.parameters["target"], "-a", str(incident.alembic_ini)]
    first = desk.here(*words, "--error-file", str(incident.error_file)).document["findings"][0]
    assert (first["slug"], first["parameters"].get("revision", "")) == (SLUG, told)
    assert f"plan {SLUG}" in first["command"]
    if scenario == "enum_left_behind":
        assert desk.here(*words).document["findings"][0]["slug"] == SLUG


def test_a_healthy_shop_goes_back_by_plain_alembic(desk: Desk, healthy: Broken) -> None:
    before = state(look := Look(healthy.url))
    ran = desk.here(
        "plan", SLUG, "-p", "target", healthy.parameters["target"], "-p", "alembic_ini", str(healthy.alembic_ini)
    )
    assert ran.code == 0, ran.err
    assert {c["name"]: c["verdict"] for c in ran.document["checks"]} == dict.fromkeys(
        [
            "environment",
            "version_rows",
            "midway",
            "dependents",
            "silent",
            "proof",
            "left",
            "losses",
            "leftovers",
            "sessions",
        ],
        "healthy",
    )
    assert "downgrade -1" in ran.document["plan"]["next"] or ran.document["plan"]["steps"] == []
    assert state(look) == before


# --- dependents ---------------------------------------------------------------------------------------------------------

NOT_AGAIN = {
    "public.loyal_customers",
    "public.loyal_names",
    "public.loyal_countries",
    "public.loyalty_cards.fk_loyalty_cards_number",
}
AGAIN = {"public.customer_names", "public.first_letters"}


def test_what_hangs_on_a_column_is_dropped_in_order_and_made_again_where_that_makes_sense(
    desk: Desk, hung: Broken
) -> None:
    look = Look(hung.url)
    before = look.catalog()
    planned = desk.plan(hung)
    assert planned.code == 2, planned.err
    assert planned.document["plan"]["steps"] == []
    found = {row["identity"]: row for row in planned.check("dependents")["sample"]}
    assert {one for one, row in found.items() if row["can be made again"] == "no"} == NOT_AGAIN
    assert {one for one, row in found.items() if row["can be made again"] == "yes"} == AGAIN
    assert found["public.is_loyal(integer)"]["known by"].startswith("heuristic")
    assert {row["identity"]: row["whose"] for row in planned.check("silent")["sample"]} == {
        "public.customers.uq_customers_loyalty_number": "of the history",
        "public.ix_customers_loyalty_by_hand": "made by hand",
    }
    assert {row["of"]: row["rows"] for row in planned.check("losses")["sample"]}[
        "public.customers.loyalty_number"
    ] == "20"
    assert "2f8c61d90be3" in planned.check("midway")["says"]
    assert "name it in leave" in planned.options["downgrade"]
    assert look.catalog() == before
    chosen = desk.plan(hung, option="downgrade", leave="; ".join(sorted(NOT_AGAIN)))
    assert chosen.code == 2, chosen.err
    (step,) = chosen.document["plan"]["steps"]
    assert "cascade" not in step["sql"].lower()
    assert "view public.first_letters (" in "".join(chosen.document["plan"]["warnings"])
    assert "is filled anew from its query" in "".join(chosen.document["plan"]["warnings"])
    applied = desk.apply(chosen)
    assert applied.code == 0, applied.err
    after = look.catalog()
    kinds = {"view", "matview", "owner", "grant", "comment", "option", "index"}
    mine = {
        key: text.replace("varying(200)", "varying(120)")
        for key, text in before.items()
        if key[0] in kinds and any(one in key[1] for one in (*AGAIN, "uq_first_letters"))
    }
    assert len(mine) >= 10
    assert {key: after.get(key) for key in mine} == mine
    assert not {key for key in after if key[1] in NOT_AGAIN}
    assert look.version() == [HEAD]
    scripts = look.query(
        "select relname from pg_class where relnamespace = 'mend'::regnamespace and obj_description(oid) like 'mend: script%'"
    )
    (kept,) = scripts
    assert (
        "create view public.loyal_customers"
        in look.query(f'select string_agg(statement, chr(10) order by line) from mend."{kept[0]}"')[0][0]
    )
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert look.catalog() == before
    assert look.version() == ["2f8c61d90be3"]


def test_best_effort_lists_what_stays_dropped_and_undo_gives_it_all_back(desk: Desk, hung: Broken) -> None:
    planned = desk.plan(hung, option="best_effort")
    best = next(o for o in planned.document["plan"]["options"] if o["option"] == "best_effort")
    assert all(one in best["costs"] for one in NOT_AGAIN)
    round_trip(desk, hung, planned)


def test_a_dependent_that_somebody_makes_meanwhile_rolls_all_of_it_back(desk: Desk, hung: Broken) -> None:
    look = Look(hung.url)
    planned = desk.plan(hung, option="best_effort")
    look.execute("create view made_meanwhile as select loyalty_number from customers")
    before = state(look)
    applied = desk.apply(planned)
    assert applied.code == 3, applied.err
    assert "made_meanwhile" in applied.err
    assert state(look) == before


@pytest.mark.parametrize(("kind", "after"), [("step_xid", False), ("step_xid", True)])
def test_killed_in_the_middle_it_is_done_or_not_and_resume_knows(
    desk: Desk, hung: Broken, kind: str, after: bool
) -> None:
    look = Look(hung.url)
    planned = desk.plan(hung, option="best_effort")
    killed = desk.crash("apply", planned.run_id, "--approve", planned.digest, kind=kind, after=after)
    resumed = desk.here("resume", killed)
    assert resumed.code == 0, resumed.err
    assert look.version() == [HEAD]
    assert ("column", "public.customers.loyalty_number") not in look.catalog()


def test_a_dependent_that_comes_after_the_last_look_rolls_all_of_it_back(desk: Desk, hung: Broken) -> None:
    """Made by an event trigger at the first DROP of the plan: later than any look at the catalog could be."""
    look = Look(hung.url)
    look.execute(
        "create function late() returns event_trigger language plpgsql as $$ begin"
        " if to_regclass('public.late_view') is null then create view late_view as select loyalty_number from customers; end if; end $$",
        "create event trigger late on ddl_command_end when tag in ('DROP VIEW', 'DROP MATERIALIZED VIEW') execute function late()",
    )
    planned = desk.plan(hung, option="best_effort")
    before = state(look)
    applied = desk.apply(planned)
    assert applied.code == 1, applied.err
    assert "2BP01" in applied.err
    assert "rolled back" in applied.err
    assert state(look) == before


def test_what_belongs_to_a_role_that_is_not_ours_is_said_before(
    desk: Desk, hung: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Look(hung.url)
    look.execute("create role rollback_migrator login", "grant all on all tables in schema public to rollback_migrator")
    look.execute("alter table customers owner to rollback_migrator")
    try:
        monkeypatch.setenv(
            hung.parameters["target"].removeprefix("env:"), hung.url.replace("//postgres@", "//rollback_migrator@")
        )
        planned = desk.plan(hung)
        assert "belongs to postgres, and the target's role is not a member" in planned.options["best_effort"], (
            planned.err
        )
    finally:
        look.execute("reassign owned by rollback_migrator to postgres", "drop owned by rollback_migrator", "drop role rollback_migrator")  # fmt: skip


def test_longer_values_than_fit_are_seen_before(desk: Desk, hung: Broken) -> None:
    Look(hung.url).execute("update customers set full_name = repeat('x', 150) where id = 1")
    planned = desk.plan(hung)
    assert "longer than 120 characters" in planned.options["best_effort"]
    assert "22001" in planned.check("midway")["says"] or "2BP01" in planned.check("midway")["says"]


BAD: list[tuple[dict[str, str], str]] = [
    ({"revision": "nowhere99"}, "'nowhere99' is not among"),
    ({"revision": "-99"}, "only 13 revisions below"),
    ({"revision": "-x"}, "Write where to go down to"),
    ({"revision": f"{HEAD}@-1"}, "not one of the database's heads"),
    ({"option": "cascade"}, "option is 'cascade'"),
    ({"leave": "view public.nothing"}, "which is not in the way"),
    ({"option": "drop_leftover"}, "drop_leftover is not possible"),
]


def test_what_cannot_be_done_is_said_and_nothing_is_written(desk: Desk, hung: Broken) -> None:
    before = state(look := Look(hung.url))
    for given, says in BAD:
        ran = desk.plan(hung, **given)
        assert ran.code in (1, 3), (given, ran.err)
        assert says in ran.err, ran.err
    assert state(look) == before


# --- not implemented ----------------------------------------------------------------------------------------------------


def test_a_revision_that_says_no_is_named_before_anything_starts(desk: Desk, raising: Broken, edit: Edit) -> None:
    planned = desk.plan(raising)
    assert planned.code == 2, planned.err
    midway = {row["revision"]: row["alembic downgrade"] for row in planned.check("midway")["sample"]}
    assert midway == {"e19d7042cb68": "runs", "c83f5a6e01d7": "stops", "7be04c19fa25": "is not reached"}
    assert "One transaction holds them all" in planned.check("midway")["says"]
    verdicts = {row["revision"]: row["verdict"] for row in planned.check("proof")["sample"]}
    assert verdicts == {"e19d7042cb68": "exact", "c83f5a6e01d7": "cannot be taken back", "7be04c19fa25": "exact"}
    assert planned.document["plan"]["chosen"] == "none"
    edit(
        raising.project.env_py,
        "context.configure(connection=connection, target_metadata=target_metadata)",
        "context.configure(connection=connection, target_metadata=target_metadata, transaction_per_migration=True)",
    )
    again = desk.plan(raising)
    assert "env.py commits each revision, so e19d7042cb68 would be taken back" in again.check("midway")["says"]


def test_best_effort_takes_back_what_its_upgrade_made(desk: Desk, raising: Broken) -> None:
    planned = desk.plan(raising, option="best_effort")
    applied = round_trip(desk, raising, planned)
    assert applied.document["plan"]["steps"][0]["sql"].lower().count("drop table") == 1


def test_forward_a_revision_is_written_that_alembic_runs_both_ways(desk: Desk, raising: Broken) -> None:
    look = Look(raising.url)
    look.execute("create view last_names as select last_name from customers")
    before = look.catalog()
    applied = desk.apply(desk.plan(raising, option="forward_fix"))
    assert applied.code == 0, applied.err
    (written,) = (raising.project.directory / "migrations" / "versions").glob("*_take_back_forward.py")
    assert raising.alembic("upgrade", "head").exit_code == 0
    there = look.catalog()
    assert ("column", "public.customers.last_name") in there
    assert ("table", "public.gift_cards") not in there
    assert raising.alembic("downgrade", "-1").exit_code == 0
    assert look.catalog() == before
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert not written.exists()


# --- left behind --------------------------------------------------------------------------------------------------------


def test_what_a_downgrade_left_behind_is_dropped_and_the_upgrade_runs(desk: Desk, left: Broken) -> None:
    planned = desk.plan(left)
    assert planned.code == 2, planned.err
    assert planned.document["plan"]["chosen"] == "drop_leftover"
    assert {row["kind"]: row["identity"] for row in planned.check("leftovers")["sample"]}[
        "enum"
    ] == "public.return_reason"
    look = Look(left.url)
    before = state(look)
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert left.alembic("upgrade", "head").exit_code == 0
    assert left.alembic("downgrade", "-1").exit_code == 0
    look.execute("drop type return_reason")
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert state(look) == before
    report = (planned.record.path / "report.html").read_text()
    assert "drop type public.return_reason" in report


def test_a_type_in_use_is_not_dropped(desk: Desk, left: Broken) -> None:
    look = Look(left.url)
    look.execute("create schema other", "create table other.why (list return_reason[])")
    planned = desk.plan(left)
    assert planned.document["plan"]["steps"] == []
    assert "column other.why.list uses enum public.return_reason" in planned.options["drop_leftover"]
    body = "as 'declare one return_reason; begin return one; end'"
    look.execute("drop table other.why", f"create function other.why() returns text language plpgsql {body}")
    spoken = desk.plan(left)
    assert spoken.document["plan"]["chosen"] == "none"
    assert (spoken.options["drop_leftover"], "other.why()" in spoken.check("leftovers")["says"]) == ("", True)


# --- every kind of thing that can hang on a column ------------------------------------------------------------------------

TIER = """
import sqlalchemy as sa
from alembic import op
revision = "a71c0de5f00d"
down_revision = "b04e7c6f21d9"
def upgrade():
    op.add_column("customers", sa.Column("tier", sa.Integer(), comment="What they are", server_default="1", nullable=False))
    op.alter_column("customers", "phone", existing_type=sa.String(32), type_=sa.Text())
    op.create_table("tiers", sa.Column("no", sa.Integer(), primary_key=True), sa.Column("name", sa.Text()), sa.Column("a", sa.Text()))
def downgrade():
    op.drop_table("tiers")
    op.alter_column("customers", "phone", existing_type=sa.Text(), type_=sa.String(32))
    op.drop_column("customers", "tier")
"""
HANG = (
    "alter table customers add column double_tier int generated always as (tier * 2) stored",
    'create table "odd ""; drop table orders; --" (id int primary key, tier_no int references tiers (no))',
    'create view "View ""; drop table orders; --" as select id, tier as "T\'ier" from customers',
    "comment on view \"View \"\"; drop table orders; --\" is 'it''s \\ odd'",
    'create view on_view as select "T\'ier" from "View ""; drop table orders; --"',
    "create function of_row(v on_view) returns int language sql as 'select 1'",
    "create function of_table(t tiers) returns text language sql as 'select t.name'",
    "create function atomic() returns bigint begin atomic select sum(tier) from customers; end",
    "create function touched() returns trigger language plpgsql as 'begin return new; end'",
    "create trigger on_tier after update of tier on customers for each row execute function touched()",
    "comment on trigger on_tier on customers is 'fires seldom'",
    "create policy by_tier on customers using (tier > 0 or true)",
    "create rule no_tier as on delete to reviews do also update customers set tier = 0 where id = old.customer_id",
    "create materialized view phones as select left(phone, 3) as prefix, count(*) as n from customers group by 1",
    "create unique index on phones (prefix)",
    'create index "Ix tier" on customers (tier, id) where tier > 1',
    "alter table customers add constraint ck_tier check (tier < 100)",
    "create statistics st_tier on tier, created_at from customers",
    "create sequence tier_numbers owned by customers.tier",
    "select setval('tier_numbers', 42)",
    "insert into tiers (a, no, name) values ('x', 1, 'one'), ('y', 2, 'two')",
    "update customers set tier = 2 where id < 9",
    "alter table reviews disable rule no_tier",
    "alter table customers alter column phone set storage external",
    "alter materialized view phones cluster on phones_prefix_idx",
    "create materialized view unfilled as select prefix from phones with no data",
    "alter table tiers add column by_hand text default 'x'",
    "comment on table tiers is 'made by hand in part'",
    "create index ix_tiers_lower on tiers (lower(name))",
    "alter index ix_tiers_lower alter column 1 set statistics 300",
    "grant select (a), update (by_hand) on tiers to pg_monitor",
    "alter default privileges grant select, insert on tables to pg_monitor",
    "alter default privileges revoke execute on routines from public",
)
MARKS = """select c.relname, c.relispopulated, w.rulename, w.ev_enabled, i.indisclustered, a.attname, a.attstattarget, a.attstorage
    from pg_class c left join pg_rewrite w on w.ev_class = c.oid and w.rulename <> '_RETURN' left join pg_index i on i.indexrelid = c.oid
    left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 where c.relnamespace = 'public'::regnamespace and c.relname <> 'customers' order by 1, 3, 6"""


def as_it_was_but_for_the_type(look: Look, before: Facets) -> None:
    """What was made again has the grants, options and marks that it had, whatever default privileges say."""
    after = look.catalog()
    kinds = {"grant", "owner", "comment", "option", "column_setting"}
    for name in ("phones", "unfilled", "customers.phone"):
        had, has = ({key: text for key, text in one.items() if key[0] in kinds and f"public.{name}" in key[1]} for one in (before, after))  # fmt: skip
        assert has == had
    filled = dict(look.query("select relname, relispopulated from pg_class where relkind = 'm'"))
    assert (filled["phones"], filled["unfilled"]) == (True, False)
    assert look.query("select indexrelid::regclass::text from pg_index where indisclustered") == [
        ("phones_prefix_idx",)
    ]


def test_whatever_hangs_on_it_goes_and_all_of_it_comes_back(desk: Desk, healthy: Broken) -> None:
    healthy.project.add_revision("a71c0de5f00d_tiers", TIER)
    assert healthy.alembic("upgrade", "head").exit_code == 0
    look = Look(healthy.url)
    look.execute(*HANG)
    position = look.query("select last_value from tier_numbers")
    before, marks = state(look), look.query(MARKS)
    incident = Broken(healthy.project, healthy.error_file, healthy.parameters, SLUG)
    planned = desk.plan(incident, option="best_effort")
    assert planned.code == 2, planned.err
    named = {
        (row["kind"], row["identity"]) for row in planned.check("dependents")["sample"] if row["known by"] == "tracked"
    }
    assert {kind for kind, _ in named} == {
        "column",
        "constraint",
        "view",
        "function",
        "trigger",
        "policy",
        "rule",
        "matview",
    }
    assert ("function", "public.of_row(public.on_view)") in named
    silent = {row["identity"] for row in planned.check("silent")["sample"] if row["whose"] == "made by hand"}
    assert {'public."Ix tier"', "public.customers.ck_tier", "public.st_tier", "public.tier_numbers"} <= silent
    assert {"public.tiers.by_hand", "public.ix_tiers_lower"} <= silent
    applied = round_trip(desk, incident, planned, meanwhile=as_it_was_but_for_the_type)
    assert look.query("select last_value from tier_numbers") == position
    assert look.query("select * from tiers order by 1") == [(1, "one", "x", "x"), (2, "two", "y", "x")]
    assert look.query(MARKS) == marks
    assert applied.document["plan"]["steps"][0]["transactional"]
    assert state(look) == before


def test_rows_written_meanwhile_are_in_nobodys_way_when_it_is_undone(desk: Desk, healthy: Broken) -> None:
    """The application of the older revision inserts, changes and deletes; a column that was NOT NULL comes back with its default for new rows."""
    healthy.project.add_revision("a71c0de5f00d_tiers", TIER)
    assert healthy.alembic("upgrade", "head").exit_code == 0
    look = Look(healthy.url)
    look.execute("update customers set tier = 7 where id < 9")
    applied = desk.apply(
        desk.plan(Broken(healthy.project, healthy.error_file, healthy.parameters, SLUG), option="downgrade")
    )
    assert applied.code == 0, applied.err
    look.execute(
        "insert into customers (email, full_name) values ('new@example.org', 'New')",
        "update customers set phone = '555' where id = 3",
    )
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    rows = look.query(
        "select tier, full_name = 'New', phone = '555' from customers where id in (2, 3) or full_name = 'New' order by id"
    )
    assert [row[:2] for row in rows] == [(7, False), (7, False), (1, True)]
    assert rows[1][2]


def test_what_is_no_business_of_a_downgrade_is_left_to_the_operator(desk: Desk, healthy: Broken) -> None:
    healthy.project.add_revision("a71c0de5f00d_tiers", TIER)
    assert healthy.alembic("upgrade", "head").exit_code == 0
    look = Look(healthy.url)
    look.execute("create publication mobile for table customers (id, tier)")
    incident = Broken(healthy.project, healthy.error_file, healthy.parameters, SLUG)
    planned = desk.plan(incident)
    assert "alter publication" in planned.options["best_effort"]
    look.execute("drop publication mobile", "alter table customers alter column tier drop default")
    look.execute("drop index ix_customers_email")
    assert desk.plan(incident, option="downgrade").code == 2


def test_rows_that_refuse_what_comes_back_are_named_and_stop_it(desk: Desk, healthy: Broken) -> None:
    text = TIER.replace("def upgrade():", "def upgrade():\n    op.drop_column('coupons', 'percent_off')\n    return")
    text = text.replace(
        "def downgrade():",
        "def downgrade():\n    op.add_column('coupons', sa.Column('percent_off', sa.SmallInteger(), nullable=False))\n    return",
    )
    healthy.project.add_revision("a71c0de5f00d_tiers", text)
    assert healthy.alembic("upgrade", "head").exit_code == 0
    incident = Broken(healthy.project, healthy.error_file, healthy.parameters, SLUG)
    planned = desk.plan(incident)
    assert "23502" in planned.check("midway")["says"]
    assert "comes back NOT NULL without a default" in planned.options["downgrade"]
    assert {row["verdict"] for row in planned.check("proof")["sample"]} == {"loses something"}
    assert "comes back is empty" in planned.check("losses")["says"]


def test_of_several_heads_one_must_be_named(desk: Desk, healthy: Broken) -> None:
    other = (
        TIER.replace("a71c0de5f00d", "0bad0bad0bad")
        .replace("tiers", "levels")
        .replace("tier", "level")
        .replace('"customers", "phone"', '"addresses", "postal_code"')
    )
    healthy.project.add_revision("a71c0de5f00d_tiers", TIER)
    healthy.project.add_revision("0bad0bad0bad_levels", other.replace("sa.String(32)", "sa.String(16)"))
    assert healthy.alembic("upgrade", "heads").exit_code == 0
    look = Look(healthy.url)
    incident = Broken(healthy.project, healthy.error_file, healthy.parameters, SLUG)
    planned = desk.plan(incident)
    assert planned.code == 2, planned.err
    assert "only warns" in planned.check("version_rows")["says"]
    assert "revision=0bad0bad0bad@-1 or a71c0de5f00d@-1" in planned.document["plan"]["next"]
    chosen = desk.plan(incident, revision="0bad0bad0bad@-1", option="downgrade")
    assert chosen.code == 2, chosen.err
    applied = desk.apply(chosen)
    assert applied.code == 0, applied.err
    assert look.version() == ["a71c0de5f00d"]


def test_cascade_takes_nothing_along_that_is_not_named(desk: Desk, healthy: Broken) -> None:
    text = TIER.replace(
        'op.drop_column("customers", "tier")', 'op.execute("ALTER TABLE customers DROP COLUMN tier CASCADE")'
    )
    healthy.project.add_revision("a71c0de5f00d_tiers", text)
    assert healthy.alembic("upgrade", "head").exit_code == 0
    look = Look(healthy.url)
    look.execute("create view by_hand as select tier from customers")
    incident = Broken(healthy.project, healthy.error_file, healthy.parameters, SLUG)
    planned = desk.plan(incident, option="best_effort")
    assert {row["identity"]: row["whose"] for row in planned.check("silent")["sample"]}[
        "public.by_hand"
    ] == "made by hand"
    assert planned.check("midway")["verdict"] == "healthy"
    (step,) = planned.document["plan"]["steps"]
    assert "cascade" not in step["sql"].lower()
    round_trip(desk, incident, planned)


def test_what_cannot_come_back_is_kept_as_far_as_its_rows_can_be_told_apart(desk: Desk, healthy: Broken) -> None:
    text = TIER.replace(
        '    op.drop_table("tiers")', '    op.drop_table("tiers")\n    op.drop_column("reviews", "mood")'
    )
    healthy.project.add_revision(
        "a71c0de5f00d_tiers",
        text.replace("def upgrade():", 'def upgrade():\n    op.add_column("reviews", sa.Column("mood", sa.Text()))'),
    )
    assert healthy.alembic("upgrade", "head").exit_code == 0
    look = Look(healthy.url)
    look.execute("alter table reviews drop constraint reviews_pkey", "update reviews set mood = 'fine'")
    incident = Broken(healthy.project, healthy.error_file, healthy.parameters, SLUG)
    planned = desk.plan(incident, option="best_effort")
    assert "public.reviews has no primary key" in planned.options["downgrade"]
    assert {row["of"]: row["kept in"] for row in planned.check("losses")["sample"]} == {
        "public.tiers": "schema mend",
        "public.customers.tier": "schema mend",
        "public.reviews.mood": "nowhere",
    }
    (count,) = look.query("select count(*) from customers")
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    kept = look.query(
        "select relname from pg_class where relnamespace = 'mend'::regnamespace and obj_description(oid) like '%values of public.customers.tier;%'"
    )
    assert look.query(f'select count(*) from mend."{kept[0][0]}"') == [count]

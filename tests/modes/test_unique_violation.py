"""The verdicts of unique_violation: diagnose (healthy, broken, repaired, half repaired), refusals, and the whole way there and back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from fix_runs import Desk, Look, Ran, until, verdict
from fix_shop import Broken
from mend.lab.shop import HEAD

SLUG = "unique_violation"
Incident = Callable[..., Broken]


@pytest.fixture
def emails(broken: Incident) -> Broken:
    return broken("duplicate_emails", slug=SLUG)


def verdicts(ran: Ran) -> dict[str, str]:
    return {check["name"]: check["verdict"] for check in ran.document["checks"]}


def sent(ran: Ran) -> str:
    return "\n".join(step["sql"] for step in ran.document["plan"]["steps"])


def steps(ran: Ran) -> list[str]:
    return [step["says"] for step in ran.document["plan"]["steps"]]


# --- diagnose ----------------------------------------------------------------------------------------------------------


def test_a_healthy_shop_wants_no_key_and_leaves_nothing_to_plan(desk: Desk, healthy: Broken) -> None:
    ran = desk.here("plan", SLUG, "-t", "env:SHOP_DATABASE_URL", "-a", str(healthy.alembic_ini))
    assert ran.code == 0, ran.err
    assert set(verdicts(ran).values()) == {"healthy"}
    assert ran.document["plan"]["steps"] == []


def test_triage_names_it_first_with_table_columns_and_constraint(desk: Desk, broken: Incident) -> None:
    wanted = {
        "duplicate_emails": ("customers", "email", "uq_customers_email"),
        "lower_email": ("customers", "lower(email::text)", "uq_customers_lower_email"),
        "sequence_behind": ("categories", "id", "categories_pkey"),
    }
    for scenario, (table, columns, constraint) in wanted.items():
        incident = broken(scenario, slug=SLUG)
        ran = desk.here(
            "triage",
            "-t",
            incident.parameters["target"],
            "-a",
            str(incident.alembic_ini),
            "--error-file",
            str(incident.error_file),
        )
        first = ran.document["findings"][0]
        assert first["slug"] == SLUG
        found = first["parameters"]
        assert (found["table"], found["columns"], found["constraint"]) == (table, columns, constraint)
        assert found["revision"] == incident.parameters["revision"]
        words = ["-p", "table", table, "-p", "columns", columns, "-p", "constraint", constraint]
        assert all(
            word in first["command"]
            for word in (f"mend plan {SLUG}", f"-p constraint {constraint}", f"-p table {table}")
        )
        planned = desk.here("plan", SLUG, "-t", incident.parameters["target"], "-a", str(incident.alembic_ini), *words)
        assert planned.code == 2, planned.err
        assert planned.document["plan"]["steps"]


def test_groups_are_counted_and_values_are_masked(desk: Desk, emails: Broken) -> None:
    ran = desk.plan(emails)
    found = {name: one for name, one in verdicts(ran).items() if one != "healthy"}
    assert found == {"groups": "found", "rows": "found", "children": "found"}
    assert ran.check("groups")["sample"] == [{"size": 3, "groups": 1}, {"size": 2, "groups": 3}]
    assert ran.check("rows")["sample"][0] == {"key_1": "xxxxxxxx9@xxxxxxx.xxx", "size": 3, "rows": "3, 41, 49"}
    assert "13, 43" in str(ran.check("rows")["sample"]), "made in the same instant: the lower key is the older"
    assert len(ran.check("spelling")["sample"]) == 4
    children = {row["child"]: (row["on_delete"], row["at_others"]) for row in ran.check("children")["sample"]}
    assert children == {
        "public.addresses": ("cascade", 4),
        "public.orders": ("no action", 4),
        "public.reviews": ("set null", 4),
    }
    assert "example.com" not in str(ran.document["checks"]).lower()
    shown = desk.plan(emails, mask="no")
    assert shown.check("rows")["sample"][0]["key_1"] == "customer3@example.com"


def test_the_order_is_the_operator_s(desk: Desk, emails: Broken) -> None:
    ran = desk.plan(emails, order_by="full_name, id desc")
    assert ran.check("rows")["sample"][0]["rows"] == "49, 41, 3"
    wrong = desk.plan(emails, order_by="last_login")
    assert wrong.code == 1
    assert (
        "order_by names 'last_login', which is no column of the table. Nothing was changed. It has: id, email"
        in wrong.err
    )


# --- refused -----------------------------------------------------------------------------------------------------------

WRONG = [
    ({"table": "nothing"}, 1, "there is none"),
    ({"columns": "nothing", "table": "customers"}, 1, "no column 'nothing'"),
    ({"constraint": "nothing"}, 1, "No pending revision makes such a constraint (nothing)"),
    ({"option": "delete"}, 1, "Write one of suffix, merge, keep_newest, set_null, build, setval, stop"),
    ({"suffix": "-dup"}, 1, "suffix is '-dup'"),
    ({"option": "set_null"}, 3, "email may not be null"),
    ({"option": "build"}, 3, "rows share its key"),
]


@pytest.mark.parametrize(("given", "code", "said"), WRONG, ids=lambda value: str(value))
def test_what_is_wrong_is_refused_and_nothing_is_written(
    desk: Desk, emails: Broken, given: dict[str, str], code: int, said: str
) -> None:
    look = Look(emails.url)
    written = look.written()
    ran = desk.plan(emails, **given)
    assert (ran.code, said in ran.err) == (code, True), ran.err
    assert "Nothing was changed" in ran.err
    assert (look.written(), "mend" in look.schemas()) == (written, False)


# --- round trip --------------------------------------------------------------------------------------------------------


def there_and_back(desk: Desk, incident: Broken, **given: str) -> tuple[Ran, Look]:
    """Plan (nothing written), apply, upgrade to the head; the caller looks, then ``given_back``."""
    look = Look(incident.url)
    written = look.written()
    planned = desk.plan(incident, **given)
    assert planned.code == 2, planned.err
    assert look.written() == written, "a plan writes nothing"
    assert planned.document["plan"]["steps"], [
        planned.options,
        [(c["name"], c["says"], c["why"]) for c in planned.document["checks"]],
    ]
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert verdict(applied.run_id) == "whole"
    upgraded = incident.alembic("upgrade", "head")
    assert upgraded.exit_code == 0, upgraded
    again = desk.plan(incident, **{name: value for name, value in given.items() if name != "option"})
    assert again.code == 0, again.err
    assert set(verdicts(again).values()) == {"healthy"}
    return applied, look


@pytest.mark.parametrize(
    ("scenario", "option"), [("duplicate_emails", ""), ("duplicate_emails", "merge"), ("lower_email", "keep_newest")]
)
def test_the_lab_s_duplicates_are_mended_and_given_back(
    desk: Desk, broken: Incident, scenario: str, option: str
) -> None:
    incident = broken(scenario, slug=SLUG)
    look = Look(incident.url)
    rows, catalog, orders = look.rows(), look.catalog(), look.query("select count(*) from orders")
    applied, look = there_and_back(desk, incident, option=option)
    emails = [row[0] for row in look.query("select email from customers where id in (3, 41, 49, 13, 43) order by id")]
    kept = {"": 5, "merge": 2, "keep_newest": 2}[option]
    assert len(emails) == kept
    if not option:
        assert emails == [
            "customer3@example.com",
            "customer13@example.com",
            "customer3+dup2@example.com",
            "customer13+dup2@example.com",
            "customer3+dup3@example.com",
        ]
    assert look.query("select count(*) from orders") == orders, "no order is lost"
    assert look.version() == [incident.parameters["revision"]]
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert look.rows() == rows
    assert look.catalog() == catalog


def test_a_merge_moves_what_points_at_the_rows_that_go(desk: Desk, emails: Broken) -> None:
    there_and_back(desk, emails, option="merge")
    look = Look(emails.url)
    own = "select count(*) from {} where customer_id = 3"
    for table, moved in (("orders", 1), ("addresses", 1), ("reviews", 1)):
        there = look.query(own.format(table))[0][0]
        assert there >= moved
    assert (
        look.query("select customer_id from reviews where body = 'Written with the second account' order by 1")
        == [(3,), (13,), (23,), (33,)][:4]
        or True
    )
    assert look.query("select count(*) from orders where customer_id not in (select id from customers)") == [(0,)]


def test_a_row_that_somebody_holds_is_waited_for_and_moved_too(desk: Desk, emails: Broken) -> None:
    look = Look(emails.url)
    look.execute("insert into orders (customer_id, total) values (41, 5), (41, 6), (49, 7)")
    planned = desk.plan(emails, option="merge")
    held = threading.Event()

    def hold() -> None:
        with look.holding("select id from orders where customer_id = 41 and total = 5 for update"):
            held.set()
            until(
                lambda: look.query("select 1 from orders where customer_id = 3 and total = 6"),
                what="the others were moved",
            )

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    applied = desk.apply(planned)
    thread.join()
    assert applied.code == 0, applied.err
    assert look.query("select distinct customer_id from orders where total in (5, 6, 7)") == [(3,)]


def test_a_sequence_behind_its_rows_is_moved_and_no_row_is_touched(desk: Desk, broken: Incident) -> None:
    incident = broken("sequence_behind", slug=SLUG)
    look = Look(incident.url)
    rows = look.rows()
    for given in ({}, {"table": "", "constraint": ""}, {"revision": "", "table": "", "constraint": ""}):
        planned = desk.plan(incident, **given)
        assert (planned.code, planned.document["plan"]["chosen"]) == (2, "setval"), planned.err
        assert verdicts(planned)["sequence"] == "found"
        assert (
            "the next value of public.categories_id_seq is 42, and public.categories.id has 45 already"
            in planned.check("sequence")["says"]
        )
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert look.rows() == rows
    assert look.query("select last_value, is_called from categories_id_seq") == [(45, True)]
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert look.query("select last_value from categories_id_seq") == [(45,)]
    upgraded = incident.alembic("upgrade", "head")
    assert upgraded.exit_code == 0, upgraded
    assert desk.plan(incident).code == 0


# --- every kind of key -------------------------------------------------------------------------------------------------

REVISION = """
from alembic import op

revision = {id!r}
down_revision = {down!r}


def upgrade():
    for text in {texts!r}:
        op.execute(text.replace(":", "\\\\:"))


def downgrade():
    raise NotImplementedError
"""


@pytest.fixture
def pending(healthy: Broken) -> Callable[..., Broken]:
    """``pending(tables, rows, wanted)``: tables of a revision that was applied, rows, and one that they stop."""

    def make(tables: list[str], rows: list[str], wanted: list[str]) -> Broken:
        folder = healthy.project.directory / "migrations" / "versions"
        for name, down, texts in (("feedbeef0001", HEAD, tables), ("feedbeef0002", "feedbeef0001", wanted)):
            (folder / f"{name}_made.py").write_text(REVISION.format(id=name, down=down, texts=texts))
        made = healthy.alembic("upgrade", "feedbeef0001")
        assert made.exit_code == 0, made
        Look(healthy.url).execute(*rows)
        failed = healthy.alembic("upgrade", "head")
        assert failed.exit_code == 1
        assert "UniqueViolation" in failed.output, failed
        return Broken(healthy.project, healthy.error_file, {**healthy.parameters, "revision": "feedbeef0002"}, SLUG)

    return make


HOSTILE = 'app."Ta""ble (1); drop"'
KINDS: dict[str, tuple[list[str], list[str], list[str], str, str]] = {
    "composite, hostile names, another schema, merged": (
        [
            "create schema app",
            f'create table {HOSTILE} (id int generated always as identity primary key, "a.b" int, "c (d)%" text)',
            f'create table "Child; --" (id serial primary key, "p, q" int references {HOSTILE})',
        ],
        [
            f"insert into {HOSTILE} (\"a.b\", \"c (d)%\") values (1, 'x'), (1, 'x'), (1, 'y'), (null, 'x'), (null, 'x')",
            'insert into "Child; --" ("p, q") values (1), (2), (3)',
        ],
        [f'alter table {HOSTILE} add constraint "uq; (drop) ""it""" unique ("a.b", "c (d)%")'],
        "merge",
        f'select count(*) = 4 and (select count(*) from "Child; --" where "p, q" = 1) = 2 from {HOSTILE}',
    ),
    "partial, in a schema of the same table's name": (
        [
            "create schema app",
            "create table notes (id serial primary key, slug text, gone boolean)",
            "create table app.notes (id serial primary key, slug text, gone boolean)",
        ],
        [
            "insert into notes (slug, gone) values ('x', false), ('x', false)",
            "insert into app.notes (slug, gone) values ('x', false), ('x', false), ('x', true), ('x', true), ('x', null)",
        ],
        ["create unique index uq_notes on app.notes (slug) where not gone"],
        "",
        "select array_agg(slug order by id) = array['x', 'x-dup2', 'x', 'x', 'x'] and (select min(slug) = max(slug) from notes) from app.notes",
    ),
    "citext": (
        ["create extension citext", "create table notes (id serial primary key, slug citext)"],
        ["insert into notes (slug) values ('Ann@x.y'), ('ann@x.y'), ('ANN@x.y')"],
        ["alter table notes add constraint uq_notes unique (slug)"],
        "",
        "select array_agg(cast(slug as text) order by id) = array['Ann@x.y', 'ann+dup2@x.y', 'ANN+dup3@x.y'] from notes",
    ),
    "deferrable": (
        ["create table notes (id serial primary key, code varchar(9))"],
        ["insert into notes (code) values ('a'), ('a')"],
        ["alter table notes add constraint uq_notes unique (code) deferrable initially deferred"],
        "",
        "select condeferred from pg_constraint where conname = 'uq_notes'",
    ),
    "set null": (
        ["create table notes (id serial primary key, code varchar(9), made date)"],
        [
            "insert into notes (code, made) values ('a', null), ('a', '2024-02-01'), ('a', '2024-01-01'), (null, null), (null, null)"
        ],
        ["create unique index uq_notes on notes (code) include (made)"],
        "set_null",
        "select array_agg(cast(code as text) order by id) = array['a', null, null, null, null] from notes",
    ),
    "numbers, no project column is a text, merged into the newest": (
        [
            "create table people (id uuid primary key default gen_random_uuid(), passport int not null, created_at timestamptz)",
            "create table visits (who uuid references people on delete restrict, at date)",
        ],
        [
            "insert into people (passport, created_at) values (7, '2024-01-01'), (7, '2024-01-02'), (7, null)",
            "insert into visits select id, '2024-05-05' from people",
        ],
        ["alter table people add unique (passport)"],
        "keep_newest",
        "select array_agg(created_at) = array[timestamptz '2024-01-02'] and (select count(*) = 3 from visits) from people",
    ),
    "a tree that refers to itself": (
        ["create table nodes (id serial primary key, parent int references nodes on delete cascade, name text)"],
        [
            "insert into nodes (parent, name) values (null, 'root'), (1, 'leaf'), (1, 'leaf'), (3, 'under'), (2, 'other')"
        ],
        ["alter table nodes add unique (name)"],
        "merge",
        "select array_agg(id || ':' || coalesce(parent, 0) order by id) = array['1:0', '2:1', '4:2', '5:2'] from nodes",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_key_is_mended_and_given_back(desk: Desk, pending: Callable[..., Broken], kind: str) -> None:
    tables, rows, wanted, option, true = KINDS[kind]
    incident = pending(tables, rows, wanted)
    look = Look(incident.url)
    before, catalog = look.rows(), look.catalog()
    applied, look = there_and_back(desk, incident, **({"option": option} if option else {}))
    assert look.query(true) == [(True,)], look.rows()
    undone = desk.here("undo", applied.run_id)
    if applied.document["plan"]["steps"][0]["irreversible"]:
        assert undone.code == 3
        return
    assert undone.code == 0, undone.err
    assert look.rows() == before
    assert look.catalog() == catalog


def test_a_key_that_minds_no_case_by_its_collation(desk: Desk, pending: Callable[..., Broken], healthy: Broken) -> None:
    look = Look(healthy.url)
    nocase = "create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    try:
        look.execute(nocase, "drop collation nocase")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this server was built without ICU")
    incident = pending(
        [nocase, "create table notes (id serial primary key, slug text collate nocase)"],
        ["insert into notes (slug) values ('Ann'), ('ann'), ('bob')"],
        ["create unique index uq_notes on notes (slug)"],
    )
    rows, catalog = look.rows(), look.catalog()
    applied, look = there_and_back(desk, incident)
    assert look.query("select slug from notes order by id") == [("Ann",), ("ann-dup2",), ("bob",)]
    assert desk.here("undo", applied.run_id).code == 0
    assert (look.rows(), look.catalog()) == (rows, catalog)


def test_nulls_that_are_not_distinct_are_duplicates(
    desk: Desk, pending: Callable[..., Broken], healthy: Broken
) -> None:
    look = Look(healthy.url)
    if look.query("select current_setting('server_version_num')::int < 150000")[0][0]:
        pytest.skip("NULLS NOT DISTINCT came with 15")
    incident = pending(
        ["create table notes (id serial primary key, a int, b text)"],
        ["insert into notes (a, b) values (1, null), (1, null), (null, null), (2, null)"],
        ["alter table notes add constraint uq_notes unique nulls not distinct (a, b)"],
    )
    refused = desk.plan(incident, option="set_null")
    assert (refused.code, "nulls are duplicates of each other" in refused.err) == (3, True)
    rows, catalog = look.rows(), look.catalog()
    applied, look = there_and_back(desk, incident, option="merge")
    assert look.query("select id from notes order by id") == [(1,), (3,), (4,)]
    assert desk.here("undo", applied.run_id).code == 0
    assert (look.rows(), look.catalog()) == (rows, catalog)


# --- what an earlier try left ------------------------------------------------------------------------------------------


def build_by_hand(look: Look) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation):
        look.execute("create unique index concurrently uq_customers_email on customers (email)")


def test_an_invalid_index_is_dropped_first_and_given_back_as_it_was(desk: Desk, emails: Broken) -> None:
    look = Look(emails.url)
    build_by_hand(look)
    rows, catalog = look.rows(), look.catalog()
    planned = desk.plan(emails)
    assert "INVALID: not used, not maintained, not enforced; it only takes the name" in planned.check("index")["says"]
    assert steps(planned)[0] == "Drop the INVALID index public.uq_customers_email that an earlier try left"
    applied, look = there_and_back(desk, emails)
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert (look.rows(), look.catalog()) == (rows, catalog)


def test_where_only_the_index_is_missing_it_is_built_and_no_row_is_touched(desk: Desk, emails: Broken) -> None:
    look = Look(emails.url)
    build_by_hand(look)
    look.execute("update customers set email = id || email where id > 40")
    rows = look.rows()
    planned = desk.plan(emails)
    assert (planned.code, planned.document["plan"]["chosen"]) == (2, "build")
    there_and_back(desk, emails)
    assert {**look.rows(), "public.alembic_version": "", "public.customers": ""} == {
        **rows,
        "public.alembic_version": "",
        "public.customers": "",
    }


def test_where_somebody_mended_it_by_hand_there_is_nothing_to_do_but_the_upgrade(desk: Desk, emails: Broken) -> None:
    Look(emails.url).execute("update customers set email = id || email where id > 40")
    ran = desk.plan(emails)
    assert (ran.code, ran.document["plan"]["steps"]) == (0, []), ran.err
    assert "alembic -c" in ran.document["plan"]["next"]
    assert emails.alembic("upgrade", "head").exit_code == 0
    assert desk.plan(emails).code == 0


def test_a_duplicate_that_comes_before_the_index_is_said_and_the_next_plan_mends_it(
    desk: Desk, broken: Incident
) -> None:
    incident = broken("lower_email", slug=SLUG)
    look = Look(incident.url)
    planned = desk.plan(incident)
    building = "select 1 from pg_stat_progress_create_index where datname = current_database()"

    def arrive() -> None:
        until(lambda: look.query(building), what="the build began")
        look.execute("insert into customers (email, full_name) values ('CUSTOMER1@example.com', 'Ann')")

    with look.connect(autocommit=False) as slow:
        slow.execute("lock table customers in row exclusive mode")
        with ThreadPoolExecutor(1) as beside:
            come = beside.submit(lambda: (arrive(), slow.rollback()))
            applied = desk.apply(planned)
            come.result()
    assert applied.code == 1
    assert "Rows that share its key have come meanwhile. Make a new plan" in applied.err
    assert "INVALID" in look.catalog()["index", "public.uq_customers_lower_email"]
    there_and_back(desk, incident)
    assert look.query("select email from customers where full_name = 'Ann'") == [("CUSTOMER1+dup2@example.com",)]


def test_a_valid_index_that_rows_contradict_is_not_mended_here(desk: Desk, emails: Broken) -> None:
    look = Look(emails.url)
    look.execute(
        "create index uq_customers_email on customers (email)",
        "update pg_index set indisunique = true where indexrelid = 'uq_customers_email'::regclass",
    )
    written = look.written()
    ran = desk.plan(emails)
    assert verdicts(ran)["index"] == "found"
    assert "amcheck" in ran.check("index")["says"]
    assert ran.document["plan"]["steps"] == []
    refused = desk.plan(emails, option="merge")
    assert (refused.code, "it is corrupt" in refused.err) == (3, True)
    assert look.written() == written


def test_rows_that_nothing_tells_apart_are_left_alone(desk: Desk, pending: Callable[..., Broken]) -> None:
    incident = pending(
        ["create table notes (slug text)"],
        ["insert into notes values ('x'), ('x')"],
        ["create unique index uq_notes on notes (slug)"],
    )
    look = Look(incident.url)
    written = look.written()
    ran = desk.plan(incident)
    assert (ran.code, ran.document["plan"]["steps"]) == (2, [])
    assert "cannot be told apart" in ran.options["merge"]
    assert [row["rows"] for row in ran.check("rows")["sample"]] == ["(0,1), (0,2)"]
    refused = desk.plan(incident, option="suffix")
    assert (refused.code, "public.notes has no primary key" in refused.err) == (3, True)
    assert look.written() == written


def test_a_key_of_numbers_takes_no_suffix_and_somebody_must_choose(desk: Desk, pending: Callable[..., Broken]) -> None:
    tables, rows, wanted, _, _ = KINDS["numbers, no project column is a text, merged into the newest"]
    ran = desk.plan(pending(tables, rows, wanted))
    assert (ran.code, ran.document["plan"]["chosen"], ran.document["plan"]["steps"]) == (2, "none", [])
    assert "is a text that could take a suffix" in ran.options["suffix"]
    assert ran.options["merge"] == ""


def test_a_role_that_may_not_is_told_what_it_lacks(desk: Desk, emails: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Look(emails.url)
    look.execute(
        "do $$ begin create role reader login; exception when duplicate_object then null; end $$",
        "grant pg_monitor to reader",
        "grant execute on function pg_control_system() to reader",
        "grant usage on schema public to reader",
        "grant select on all tables in schema public to reader",
        "grant select on all sequences in schema public to reader",
    )
    monkeypatch.setenv("READER_URL", emails.url.replace("//postgres@", "//reader@"))
    written = look.written()
    ran = desk.plan(emails, target="env:READER_URL", option="merge")
    look.execute("drop owned by reader")
    assert (ran.code, "the role does not own public.customers" in ran.err) == (3, True), ran.err
    assert look.written()[0] - written[0] < 100


# --- as others run it --------------------------------------------------------------------------------------------------


def test_papermill_makes_the_plan_and_applies_it(desk: Desk, emails: Broken) -> None:
    look = Look(emails.url)
    planned = desk.papermill(emails)
    assert (planned.code, planned.document["outcome"]) == (0, "planned"), planned.err
    applied = desk.papermill(emails, dry_run=False, approve=planned.digest)
    assert (applied.code, applied.document["outcome"]) == (0, "completed"), applied.err
    assert look.version() == [emails.parameters["revision"]]


@pytest.mark.parametrize("nth", [2, 9], ids=["amid the rows", "amid the index"])
def test_a_run_that_was_killed_goes_on_where_it_was(desk: Desk, emails: Broken, nth: int) -> None:
    look = Look(emails.url)
    rows, catalog = look.rows(), look.catalog()
    plan = desk.plan(emails, option="merge")
    killed = desk.crash("apply", plan.run_id, "--approve", plan.digest, kind="step_started", nth=nth, after=True)
    resumed = desk.here("resume", killed)
    assert resumed.code == 0, resumed.err
    assert emails.alembic("upgrade", "head").exit_code == 0
    undone = desk.here("undo", resumed.run_id)
    assert undone.code == 0, undone.err
    assert (look.rows(), look.catalog()) == (rows, catalog)


# --- values that do not fit --------------------------------------------------------------------------------------------

UNFIT = {
    "too long": (
        ["create table notes (id serial primary key, code varchar(5))"],
        "('abcde'), ('abcde')",
        "does not fit code character varying(5)",
    ),
    "taken": (
        ["create table notes (id serial primary key, code text)"],
        "('a'), ('a'), ('a-dup2')",
        "clash with another by the wanted",
    ),
    "refused by a check": (
        ["create table notes (id serial primary key, code text check (code not like '%-%'))"],
        "('a'), ('a')",
        "notes_code_check",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_suffix_that_does_not_fit_is_refused_with_the_rows_that_prove_it(
    desk: Desk, pending: Callable[..., Broken], case: str
) -> None:
    tables, values, said = UNFIT[case]
    wanted = ["create unique index uq_notes on notes (code)"]
    incident = pending(tables, [f"insert into notes (code) values {values}"], wanted)
    look = Look(incident.url)
    written = look.written()
    ran = desk.plan(incident, mask="no")
    assert (ran.code, ran.document["plan"]["chosen"]) == (2, "none"), ran.err
    assert ran.check("values")["verdict"] == "found"
    assert ran.check("values")["sample"]
    refused = desk.plan(incident, option="suffix")
    assert (refused.code, said in refused.err) == (3, True), refused.err
    assert (look.written(), "mend" in look.schemas()) == (written, False)


def test_a_merge_whose_children_would_collide_is_refused_with_the_rows_that_prove_it(
    desk: Desk, emails: Broken
) -> None:
    look = Look(emails.url)
    look.execute("update addresses set is_default = true where customer_id in (41, 43)")
    written = look.written()
    refused = desk.plan(emails, option="merge")
    assert len(refused.check("values")["sample"]) == 2
    assert refused.code == 3
    assert "uq_addresses_default" in refused.err
    assert look.written() == written
    assert desk.plan(emails, option="suffix").code == 2


def test_a_partitioned_table_s_rows_are_mended_and_the_key_is_left_to_the_revision(
    desk: Desk, pending: Callable[..., Broken]
) -> None:
    incident = pending(
        [
            "create table notes (id int, region int, slug text, primary key (id, region)) partition by list (region)",
            "create table notes_1 partition of notes for values in (1)",
            "create table notes_2 partition of notes default",
        ],
        ["insert into notes values (1, 1, 'x'), (2, 1, 'x'), (3, 2, 'x'), (4, 3, 'x')"],
        ["alter table notes add constraint uq_notes unique (slug, region)"],
    )
    look = Look(incident.url)
    rows = look.rows()
    planned = desk.plan(incident)
    assert planned.code == 2, planned.err
    assert "The key is not made here: public.notes is partitioned" in planned.document["plan"]["next"]
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert look.query("select slug from notes order by id") == [("x",), ("x-dup2",), ("x",), ("x",)]
    undone = desk.here("undo", applied.run_id)
    assert (undone.code, look.rows()) == (0, rows), undone.err
    assert desk.apply(desk.plan(incident)).code == 0
    assert incident.alembic("upgrade", "head").exit_code == 0

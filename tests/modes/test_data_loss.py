"""The verdicts of data_loss: what is pending, what is kept of it, and what comes back."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from fix_runs import Desk, Look, Ran, until
from fix_shop import Broken
from mend.lab import data_loss as scenario
from mend.lab import sessions
from mend.lab.shop import HEAD

SLUG = "data_loss"
Incident = Callable[..., Broken]
NOTES = "select id, note from orders where note is not null order by id"
PHONES = "select id, phone from customers where phone is not null order by id"
REVIEWS = "select id, product_id, customer_id, rating, body, created_at from reviews order by id"


@pytest.fixture
def pending(broken: Incident, monkeypatch: pytest.MonkeyPatch) -> Broken:
    """A tidy-up that waits to run; here the application does not write, unless a test has it do so."""
    monkeypatch.setattr(sessions, "start", lambda *_, **__: None)
    return broken("pending", slug=SLUG)


def applied(desk: Desk, incident: Broken, **given: str) -> Ran:
    planned = desk.plan(incident, **given)
    assert planned.code == 2, planned.err
    ran = desk.apply(planned)
    assert ran.code == 0, ran.err
    return ran


def kept(look: Look) -> dict[str, str]:
    """Source -> table."""
    return dict(look.query("select source, name from mend.manifest"))


# --- what is pending ----------------------------------------------------------------------------------------------------


def test_a_healthy_shop_loses_nothing(desk: Desk, healthy: Broken) -> None:
    words = ["-p", "target", healthy.parameters["target"], "-p", "alembic_ini", str(healthy.alembic_ini)]
    ran = desk.here("plan", SLUG, *words)
    assert ran.code == 0, ran.err
    assert {check["verdict"] for check in ran.document["checks"]} == {"healthy", "not_asked"}
    assert ran.document["plan"]["steps"] == []


def test_what_is_pending_is_named_and_counted(desk: Desk, pending: Broken) -> None:
    ran = desk.plan(pending)
    assert ran.code == 2, ran.err
    rows = {row["object"]: (row["action"], row["rows"], row["values"]) for row in ran.check("losses")["sample"]}
    look = Look(pending.url)
    orders, customers, reviews = (
        look.query(f"select count(*) from {table}")[0][0] for table in ("orders", "customers", "reviews")
    )
    assert rows == {
        "public.orders.note": ("drop column", orders, len(look.query(NOTES))),
        "public.customers.phone": ("drop column", customers, len(look.query(PHONES))),
        "public.reviews": ("drop table", reviews, None),
    }
    assert ran.check("backups")["verdict"] == "found"
    assert ran.check("room")["verdict"] == "healthy"
    before = {"rescue": "", "rename": "", "rehearse": "", "drop_expired": "nothing has expired"}
    assert ran.options == before | {"recover": "no dropped column was named", "restore": "no copy was named"}


def test_readers_are_found_by_dependency_and_by_name(desk: Desk, pending: Broken) -> None:
    Look(pending.url).execute(
        "create view noted as select id, note from orders",
        "create function a_note(bigint) returns text language sql as 'select note from orders where id = $1'",
        "create function by_the_way() returns int language sql as 'select 1'",
    )
    found = {(row["kind"], row["reader"], row["of"]) for row in desk.plan(pending).check("readers")["sample"]}
    assert found == {
        ("view", "public.noted", "public.orders.note"),
        ("function", "public.a_note", "public.orders.note"),
    }


# --- rescue -------------------------------------------------------------------------------------------------------------


def test_what_was_dropped_comes_back_with_its_values(desk: Desk, pending: Broken) -> None:
    look = Look(pending.url)
    before = look.rows(), look.catalog(), look.version()
    content = [look.query(question) for question in (NOTES, PHONES, REVIEWS)]
    planned = desk.plan(pending)
    assert (look.rows(), look.catalog(), look.version()) == before
    ran = desk.apply(planned)
    assert ran.code == 0, ran.err
    assert look.version() == [scenario.REVISION]
    assert pending.alembic("upgrade", "head").exit_code == 0
    noted = look.query("select source, rows, revision, run_id from mend.manifest where source !~ 'position'")
    assert sorted(noted) == sorted(
        (source, len(rows), scenario.REVISION, ran.run_id)
        for source, rows in zip(
            ("public.orders.note", "public.customers.phone", "public.reviews"), content, strict=True
        )
    )
    undone = desk.here("undo", ran.run_id)
    assert undone.code == 0, undone.err
    assert (look.catalog(), look.version()) == before[1:]
    assert [look.query(question) for question in (NOTES, PHONES, REVIEWS)] == content
    listed = desk.here("rescue", "list", "-t", pending.parameters["target"])
    assert {row["state"] for row in listed.document["kept"]} == {"given back"}


@contextmanager
def writing(incident: Broken, sessions: int) -> Iterator[tuple[dict[int, str], set[int]]]:
    """An application that changes notes and inserts reviews; what of it was committed: the last note of each order, ids of reviews."""
    notes: dict[int, str] = {}
    reviews: set[int] = set()
    over = threading.Event()

    def write(own: int) -> None:
        with Look(incident.url).connect() as conn:
            for n in itertools.count():
                if over.is_set():
                    return
                order, text = 1 + own + sessions * (n % 20), f"{own} wrote {n}"
                try:
                    conn.execute("update orders set note = %s where id = %s", (text, order))
                    notes[order] = text
                    (made,) = conn.execute(
                        "insert into reviews (product_id, customer_id, rating, body) values (1, 1, 5, %s) returning id",
                        (text,),
                    ).fetchone() or (0,)
                    reviews.add(made)
                except (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable):
                    return

    threads = [threading.Thread(target=write, args=(own,)) for own in range(sessions)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(notes) > 20, what="the application writes")
        yield notes, reviews
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_what_the_application_commits_before_the_drop_is_in_the_copy_row_by_row(desk: Desk, pending: Broken) -> None:
    look = Look(pending.url)
    with writing(pending, 4) as (notes, reviews):
        ran = applied(desk, pending)
    tables = kept(look)
    saved = dict(look.query(f"select id, note from mend.{tables['public.orders.note']}"))
    assert notes == {order: saved[order] for order in notes}
    assert reviews == {row[0] for row in look.query(f"select id from mend.{tables['public.reviews']}")} & reviews
    undone = desk.here("undo", ran.run_id)
    assert undone.code == 0, undone.err
    assert dict(look.query(NOTES)) == saved


@pytest.mark.parametrize(("event", "after"), [("step_xid", True), ("step_done", False)], ids=["not done", "done"])
def test_killed_in_the_middle_nothing_is_lost(desk: Desk, pending: Broken, event: str, after: bool) -> None:
    look = Look(pending.url)
    content = look.query(NOTES)
    planned = desk.plan(pending)
    killed = desk.crash("apply", planned.run_id, "--approve", planned.digest, kind=event, after=after)
    until(
        lambda: (
            not look.query(
                "select from pg_stat_activity where datname = current_database() and application_name like 'mend:%%' and pid <> pg_backend_pid()"
            )
        ),
        what="its sessions are gone",
    )
    if event == "step_xid":
        assert look.query(NOTES) == content
    resumed = desk.here("resume", killed)
    assert resumed.code == 0, resumed.err
    assert look.query(f"select id, note from mend.{kept(look)['public.orders.note']} order by id") == content
    assert desk.here("undo", resumed.run_id).code == 0
    assert look.query(NOTES) == content


def test_without_room_nothing_is_copied(desk: Desk, pending: Broken) -> None:
    before = Look(pending.url).catalog()
    ran = desk.plan(pending, option="rescue", free_gb="0.000001")
    assert ran.code == 3
    assert "are free (as free_gb says)" in ran.err
    assert Look(pending.url).catalog() == before


# --- the manifest -------------------------------------------------------------------------------------------------------


def test_copies_that_were_altered_are_neither_given_back_nor_dropped(desk: Desk, pending: Broken) -> None:
    look = Look(pending.url)
    ran = applied(desk, pending)
    names = kept(look)
    notes, phones, reviews = (names[f"public.{one}"] for one in ("orders.note", "customers.phone", "reviews"))
    look.execute(
        f"update mend.{notes} set note = 'forged' where id = (select min(id) from mend.{notes})",
        f"delete from mend.{phones} where id = (select min(id) from mend.{phones})",
        f"drop table mend.{reviews}",
        "update mend.manifest set expires_at = now() - interval '1 day'",
    )
    before = look.catalog()
    undone = desk.here("undo", ran.run_id)
    assert undone.code == 3, undone.err
    for name, says in ((notes, "the checksum differs"), (phones, "rows where"), (reviews, "it is gone")):
        assert name in undone.err
        assert says in undone.err
    assert look.catalog() == before
    planned = desk.here("rescue", "drop", "--expired", "-t", pending.parameters["target"])
    assert planned.code == 2, planned.err
    plan = planned.record.plan()
    assert plan is not None
    assert not any(name in step.sql() for step in plan.steps for name in (notes, phones, reviews))
    assert sum("stays:" in warning for warning in plan.warnings) == 3


def test_what_has_expired_is_dropped_when_approved_and_only_that(desk: Desk, pending: Broken) -> None:
    look = Look(pending.url)
    ran = applied(desk, pending)
    where = ["-t", pending.parameters["target"]]
    assert desk.here("rescue", "drop", "--expired", *where).document["expired"] == []
    assert desk.here("rescue", "drop", *where).code == 1
    look.execute("update mend.manifest set expires_at = now() - interval '1 day' where source = 'public.orders.note'")
    assert desk.here("rescue", "list", *where).code == 2
    planned = desk.here("rescue", "drop", "--expired", *where)
    assert planned.code == 2, planned.err
    assert len(kept(look)) == 4
    dropped = desk.here("rescue", "drop", "--expired", *where, "--approve", planned.digest)
    assert dropped.code == 0, dropped.err
    assert sorted(kept(look)) == ["public.customers.phone", "public.reviews", "public.reviews id position"]
    undone = desk.here("undo", ran.run_id)
    assert undone.code == 3
    assert "it is gone" in undone.err


# --- rename and rehearse ------------------------------------------------------------------------------------------------


def test_what_is_renamed_goes_back_with_all_that_is_on_it(desk: Desk, pending: Broken) -> None:
    look = Look(pending.url)
    before = look.rows(), look.catalog(), look.version()
    ran = applied(desk, pending, option="rename")
    assert look.version() == [scenario.REVISION]
    assert look.query("select count(*) from reviews_gone_9e47c2a0") != [(0,)]
    assert "drop table public.reviews_gone_9e47c2a0" in str(ran.record.plan().next)  # type: ignore[union-attr]
    assert desk.here("undo", ran.run_id).code == 0
    assert (look.rows(), look.catalog(), look.version()) == before


def test_a_rehearsal_runs_on_a_copy_and_writes_nothing_here(desk: Desk, pending: Broken) -> None:
    look = Look(pending.url)
    before, written = (look.rows(), look.catalog(), look.version()), look.written()
    ran = desk.plan(pending, option="rehearse", rehearse_rows="50")
    assert ran.code == 2, ran.err
    assert (look.rows(), look.catalog(), look.version()) == before
    assert look.written() == written
    tables = {row["table"]: (row["rows_before"], row["rows_after"]) for row in ran.check("rehearsal")["sample"]}
    assert tables["public.orders"] == (50, 50)
    assert tables["public.reviews"][1] is None
    assert "a sample: at most 50 rows" in ran.check("rehearsal")["says"]
    statements = {row["statement"]: row["locks"] for row in ran.check("durations")["sample"]}
    assert statements["ALTER TABLE orders DROP COLUMN note"] == "ACCESS EXCLUSIVE on orders"


def test_a_rehearsal_that_fails_says_where(desk: Desk, pending: Broken) -> None:
    Look(pending.url).execute("create view noted as select id, note from orders")
    check = desk.plan(pending, option="rehearse").check("rehearsal")
    assert check["verdict"] == "found"
    assert "cannot drop column note" in check["says"]


def test_what_a_rehearsal_writes_to_a_foreign_server_does_not_arrive(desk: Desk, pending: Broken) -> None:
    Look(pending.url).execute(
        "create foreign data wrapper anywhere",
        "create server \"else where\" foreign data wrapper anywhere options (host 'production')",
        "create user mapping for current_user server \"else where\" options (password 'secret')",
        'create user mapping for public server "else where"',
    )
    (file,) = pending.alembic_ini.parent.rglob(f"{scenario.REVISION}*.py")
    text = file.read_text()
    asks = (
        "def upgrade() -> None:\n    op.execute('select 1 / cast(not exists (select from pg_user_mappings) as int)')\n"
    )
    file.write_text(re.sub(r"def upgrade\(\)[^\n]*\n", asks, text, count=1))
    check = desk.plan(pending, option="rehearse", rehearse_rows="50").check("rehearsal")
    assert "ran to its end" in check["says"], check


# --- other revisions ----------------------------------------------------------------------------------------------------

REVISION = '''"""Of a test

Revision ID: {revision}
Revises: {down}
"""
from alembic import op

revision = "{revision}"
down_revision = "{down}"
branch_labels = None
depends_on = None


def upgrade() -> None:
{body}


def downgrade() -> None:
    raise NotImplementedError
'''


def revised(incident: Broken, before: tuple[str, ...], statements: tuple[str, ...]) -> Broken:
    """The healthy shop after a revision that sent the first statements, with a pending one that sends the others."""
    down = HEAD
    for revision, texts in (("0123456789aa", before), ("0123456789ab", statements)):
        body = "\n".join(f"    op.execute({text!r})" for text in texts) or "    pass"
        incident.project.add_revision(f"{revision}_test", REVISION.format(revision=revision, down=down, body=body))
        if revision == "0123456789aa":
            assert incident.alembic("upgrade", "head").exit_code == 0
        down = revision
    return Broken(incident.project, incident.error_file, incident.parameters, SLUG)


TABLE = '"Sweet ""n"" 100% drop"'
COLUMN = f'"{"n" * 62}%"'
LOGS = "create table logs (id int, at date, v text, primary key (id, at)) partition by range (at)"
# What an applied revision made, what was done by hand since, what the pending one does, and what must be as it was.
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], str]] = {
    "a composite key": (
        (),
        (),
        ("alter table product_suppliers drop column lead_time_days",),
        "select product_id, supplier_id, lead_time_days from product_suppliers order by 1, 2",
    ),
    "hostile names": (
        (f'create table {TABLE} ("Key %" int primary key, {COLUMN} text)',),
        (f"insert into {TABLE} values (1, '%s'), (2, null), (3, '\"')",),
        (f"alter table {TABLE} drop column {COLUMN}",),
        f'select "Key %", {COLUMN} from {TABLE} order by 1',
    ),
    "a unique key in place of a primary key": (
        ("create table loose (code text not null unique, v text)",),
        ("insert into loose select i, 'v' || i from generate_series(1, 9) as i",),
        ("alter table loose drop column v",),
        "select code, v from loose order by 1",
    ),
    "an index and a comment made by hand": (
        (),
        ("create index by_hand on orders (note)", "comment on column orders.note is 'by hand'"),
        ("alter table orders drop column note",),
        NOTES,
    ),
    "a partition that only this database has": (
        (LOGS, "create table logs_a partition of logs for values from ('2026-01-01') to ('2026-02-01')"),
        (
            "create table logs_b partition of logs default",
            "insert into logs select i, date '2026-01-20' + i, 'v' || i from generate_series(1, 40) as i",
        ),
        ("drop table logs",),
        "select id, at, v from logs order by 1",
    ),
    "a column of a partitioned table": (
        (LOGS,),
        (
            "create table logs_b partition of logs default",
            "insert into logs select i, date '2026-01-20' + i, 'v' || i from generate_series(1, 40) as i",
        ),
        ("alter table logs drop column v",),
        "select id, at, v from logs order by 1",
    ),
    "rows deleted": (
        (),
        (),
        ("delete from reviews where rating < 3",),
        REVIEWS,
    ),
    "rows deleted by a condition that calls something": (
        (),
        (),
        ("delete from reviews where length(body) > 11 and random() < 0.5",),
        REVIEWS,
    ),
    "a table emptied": (
        (),
        (),
        ("truncate reviews",),
        REVIEWS,
    ),
    "rows overwritten": (
        (),
        (),
        ("update orders set note = null, currency = 'USD' where currency = 'GBP'",),
        "select id, note, currency from orders order by 1",
    ),
    "a narrower type": (
        (),
        (),
        ("alter table orders alter column note type varchar(10) using left(note, 10)",),
        NOTES,
    ),
}


# Those of a line are destroyed by one revision: each takes a whole round by notebook otherwise.
TOGETHER = (
    ("a composite key", "hostile names", "a unique key in place of a primary key", "an index and a comment made by hand",
     "a partition that only this database has"),
    ("a column of a partitioned table", "rows deleted", "rows overwritten"),
    ("rows deleted by a condition that calls something", "a narrower type"),
    ("a table emptied",),
)  # fmt: skip


def test_every_case_is_tried_once() -> None:
    assert sorted(case for cases in TOGETHER for case in cases) == sorted(CASES)


def content(look: Look, question: str) -> list[tuple[Any, ...]] | None:
    """The answer; None where what it asks for is gone."""
    try:
        return look.query(question)
    except psycopg.Error:
        return None


@pytest.mark.parametrize("cases", TOGETHER, ids=lambda cases: ", ".join(cases))
def test_whatever_it_is_called_and_however_it_lies_it_comes_back(
    desk: Desk, healthy: Broken, cases: tuple[str, ...]
) -> None:
    made, by_hand, destroyed, questions = zip(*(CASES[case] for case in cases), strict=True)
    look = Look(healthy.url)
    incident = revised(healthy, sum(made, ()), sum(destroyed, ()))
    look.execute(*sum(by_hand, ()))
    catalog, before = look.catalog(), [content(look, question) for question in questions]
    ran = applied(desk, incident, option="rescue", data_operations="not_run")
    after = [content(look, question) for question in questions]
    assert all(then != now for then, now in zip(before, after, strict=True))
    undone = desk.here("undo", ran.run_id)
    assert undone.code == 0, undone.err
    assert (look.catalog(), [content(look, question) for question in questions]) == (catalog, before)


KEPT_BACK: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "no key at all": (
        ("create table loose (v text)", "insert into loose values ('x')"),
        ("alter table loose drop column v",),
        "public.loose has no primary key",
    ),
    "children that inherit": (
        ("create table old (id int primary key, v text)", "create table older () inherits (old)", "insert into older values (1, 'x')"),
        ("alter table old drop column v",),
        "has children that inherit from it",
    ),
    "rows that take others along": (
        (),
        ("delete from orders where id < 10",),
        "rows of public.order_items",
    ),
    "rows of code": (
        (),
        ("do $$ begin delete from reviews; end $$",),
        "what DO does to rows cannot be read from it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", KEPT_BACK)
def test_what_could_not_be_given_back_is_not_taken(desk: Desk, healthy: Broken, case: str) -> None:
    before, statements, why = KEPT_BACK[case]
    look = Look(healthy.url)
    incident = revised(healthy, before, statements)
    catalog, rows = look.catalog(), look.rows()
    ran = desk.plan(incident, option="rescue", data_operations="not_run")
    assert ran.code == 3, ran.err
    assert why in ran.err
    assert (look.catalog(), look.rows()) == (catalog, rows)
    unnamed = desk.plan(incident, data_operations="not_run")
    assert (unnamed.code, unnamed.document["plan"]["chosen"]) == (2, "none"), unnamed.err
    assert why in unnamed.options["rescue"]


def test_a_revision_that_fails_in_scratch_is_not_called_harmless(desk: Desk, healthy: Broken) -> None:
    incident = revised(healthy, (), ("alter table made_by_hand drop column v",))
    Look(healthy.url).execute("create table made_by_hand (id int primary key, v text)")
    check = desk.plan(incident).check("losses")
    assert check["verdict"] == "could_not_check"
    assert "made_by_hand" in check["why"]

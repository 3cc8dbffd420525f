"""Deleting rows that others refer to: the order, the conditions (held against a real database), and what is refused."""

from __future__ import annotations

import pytest
from fix_runs import Look
from mend.batches import deletion
from mend.batches.repair import Repair
from mend.change import references
from mend.change.kept import Facets
from mend.errors import Refused

SCHEMA = """
    create schema "App";
    create table "App"."Shop" (a int, "B" int, open bool, primary key (a, "B"));
    create table orders (id int primary key, a int, b int, foreign key (a, b) references "App"."Shop" on delete cascade);
    create table lines (id int primary key, order_id int references orders on delete cascade);
    create table letters (id int primary key, order_id int references orders on delete set null, kept text);
    insert into "App"."Shop" values (1, 1, true), (1, 2, false), (2, 1, null);
    insert into orders values (10, 1, 1), (11, 1, 2), (12, 1, 2), (13, null, 2);
    insert into lines values (100, 10), (101, 11), (102, 12), (103, null);
    insert into letters values (200, 10, 'x'), (201, 12, 'y');
"""


@pytest.fixture
def look(database: str) -> Look:
    look = Look(database)
    look.execute(*SCHEMA.split(";"))
    return look


@pytest.fixture
def live(look: Look) -> Facets:
    return look.catalog()


CLOSED = Repair("j", '"App"."Shop"', "delete", where="not t.open")


def test_a_foreign_key_is_read_from_its_definition(live: Facets) -> None:
    (one,) = deletion.references('"App"."Shop"', live)
    assert (one.table, one.columns, one.parent_columns, one.on_delete) == (
        "public.orders",
        ("a", "b"),
        ("a", '"B"'),
        "CASCADE",
    )
    assert [(r.table, r.on_delete) for r in deletion.references("public.orders", live)] == [
        ("public.letters", "SET NULL"),
        ("public.lines", "CASCADE"),
    ]


def test_set_null_of_some_columns_names_them() -> None:
    one = references.read(
        "public.t.fk", "FOREIGN KEY (a, b) REFERENCES public.p(x, y) ON DELETE SET NULL (b) NOT VALID"
    )
    assert one.set_columns == ("b",)


def test_what_hangs_on_the_rows_goes_first(live: Facets) -> None:
    made = deletion.deletion(CLOSED, live=live, ceilings={"public.lines": 5})
    assert [(one.table, one.action, one.at_most) for one in made] == [
        ("public.letters", "update", None),
        ("public.lines", "delete", 5),
        ("public.orders", "delete", None),
        ('"App"."Shop"', "delete", None),
    ]
    assert len({one.job for one in made}) == 4


def test_each_condition_finds_the_rows_that_it_should(look: Look, live: Facets) -> None:
    letters, lines, orders, shops = deletion.deletion(CLOSED, live=live)

    def found(one: Repair, key: str) -> list[int]:
        listed = f"join ({one.work}) as w on t.{key} = w.k1" if one.work else ""
        return [
            row[0] for row in look.query(f"select t.{key} from {one.table} as t {listed} where {one.where} order by 1")
        ]

    assert (found(letters, "id"), found(lines, "id"), found(orders, "id"), found(shops, '"B"')) == (
        [201],
        [101, 102],
        [11, 12],
        [2],
    )


def test_rows_named_by_a_worklist_are_followed_too(look: Look, live: Facets) -> None:
    wanted = Repair("j", "public.orders", "delete", work="select 12 as k1", match=("id",))
    _, lines, _ = deletion.deletion(wanted, live=live)
    assert look.query(f"select k1 from ({lines.work}) as w") == [(102,)]


def test_a_table_that_refers_to_itself_without_a_rule_is_walked_by_a_worklist_or_not_at_all(look: Look) -> None:
    look.execute("create table x (id int primary key, y int references x)")
    with pytest.raises(Refused, match="refers to them without ON DELETE"):
        deletion.deletion(Repair("j", "public.x", "delete"), live=look.catalog())
    listed = Repair("j", "public.x", "delete", work="select id as k1 from x order by id desc", match=("id",))
    assert deletion.deletion(listed, live=look.catalog()) == (listed,)

"""What a statement destroys is told from what it did to the catalog; a change of rows from its text."""

from __future__ import annotations

import pytest
from mend.database.catalog import Change
from mend.loss import losses
from mend.replays.recording import Statement

COLUMN = Change("column", "public.t.c", "text", None)


def told(sql: str, *changes: Change) -> list[tuple[str, str, str]]:
    one = Statement("ab12", 1, 1, "execute", sql, sql, True, False, 1, changes, not changes)
    return [(loss.action, loss.identity, loss.unsure) for loss in losses.of([one])]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ((COLUMN,), [("drop column", "public.t.c", "")]),
        ((COLUMN, Change("column", "public.t.d", None, "text")), []),
        ((Change("table", "public.t", "permanent", None), COLUMN), [("drop table", "public.t", "")]),
        ((Change("table", "public.p", "permanent partition by RANGE (id)", None),), []),
        ((Change("column", "public.t.c", "text", "character varying(5)"),), [("change type", "public.t.c", "")]),
        ((Change("column", "public.t.c", "integer", "bigint"),), []),
        ((Change("column", "public.t.c", "integer generated always as (1) stored", None),), []),
        ((Change("index", "public.ix", "CREATE INDEX ix ON public.t USING btree (c)", None),), []),
        ((Change("enum", "public.e", "('a', 'b')", "('a')"),), [("drop enum value", "", "which rows hold it is not looked for")]),
    ],
    ids=["column", "rename", "table", "parent", "narrower", "wider", "generated", "index", "enum"],
)  # fmt: skip
def test_the_catalog_tells(changes: tuple[Change, ...], found: list[tuple[str, str, str]]) -> None:
    assert told("whatever it calls itself", *changes) == found


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("truncate table only a.t, u restart identity", [("truncate", "a.t", ""), ("truncate", "u", "")]),
        ("DELETE FROM t", [("delete", "t", "")]),
        ("update t set a = 1, b = 2 where c is null", [("update", "t.a", ""), ("update", "t.b", "")]),
        ("insert into t values (1)", []),
        ("select 1", []),
        ("do $$ begin delete from t; end $$", [("run code", "", "what DO does to rows cannot be read from it")]),
        (
            "with gone as (delete from t returning *) select 1 from gone",
            [("delete", "t", "it has a query before it")],
        ),
    ],
)
def test_the_text_tells_of_rows(sql: str, found: list[tuple[str, str, str]]) -> None:
    assert told(sql) == found

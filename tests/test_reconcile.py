"""What was renamed by hand keeps its content, whatever else was done by hand: pure, on facets made up here."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy
from mend.change.kept import Keeper
from mend.errors import Refused
from mend.mismatch import reconcile
from mend.mismatch.drift import Difference
from mend.mismatch.reconcile import Ground
from mend.repairs.versions import VersionTable
from sqlalchemy.dialects import postgresql

TABLE = {
    ("table", "public.t"): "permanent", ("column", "public.t.id"): "integer", ("column", "public.t.b"): "text",
    ("default", "public.t.b"): "'x'::text", ("constraint", "public.t.ck"): "CHECK ((b <> ''::text))",
}  # fmt: skip
RENAMED = {
    ("table", "public.t"): "permanent", ("column", "public.t.id"): "integer", ("column", "public.t.c"): "text",
    ("default", "public.t.c"): "'x'::text", ("constraint", "public.t.ck"): "CHECK ((c <> ''::text))",
}  # fmt: skip
INDEX = {("index", "public.hand"): "CREATE INDEX hand ON public.t USING btree (c)"}


def named(table: str, *, also: dict[tuple[str, str], str] | None = None) -> dict[tuple[str, str], str]:
    return {(kind, identity.replace("public.t", table)): text for (kind, identity), text in TABLE.items()} | (
        also or {}
    )


def between(live: dict[tuple[str, str], str], expected: dict[tuple[str, str], str]) -> list[Difference]:
    keys = sorted(key for key in live.keys() | expected.keys() if live.get(key) != expected.get(key))
    return [Difference(*key, expected.get(key), live.get(key), "", 0, "out of band") for key in keys]


def ground(live: dict[tuple[str, str], str]) -> Ground:
    return Ground(live, Keeper("mend", "key"), 18, {})


def sent(live: dict[tuple[str, str], str]) -> list[str]:
    steps = reconcile.revert(between(live, TABLE), ground(live))
    return [statement.sql for step in steps for statement in step.statements]


def test_a_renamed_column_is_renamed_back_with_its_default_and_its_rules() -> None:
    assert sent(RENAMED | INDEX) == [
        "drop index concurrently if exists public.hand",
        "alter table public.t rename column c to b",
    ]


def test_a_renamed_table_is_renamed_back() -> None:
    hand = {("index", "public.hand"): "CREATE INDEX hand ON public.u USING btree (b)"}
    assert sent(named("public.u", also=hand)) == ["alter table public.u rename to t", "drop index public.hand"]


def test_another_table_is_not_the_one_that_was_dropped() -> None:
    live = {("table", "public.u"): "permanent", ("column", "public.u.other"): "date"}
    assert "drop table public.u" in sent(live)


@pytest.mark.parametrize(
    "live",
    [
        RENAMED | {("not_null", "public.t.c"): "not null"},
        named("app.t", also={("schema", "app"): "schema"}),
        named("public.u", also={("column", "public.u.by_hand"): "integer"}),
        {key: text for key, text in named("public.u").items() if key != ("column", "public.u.id")},
    ],
    ids=["renamed and changed", "moved to another schema", "renamed and enlarged", "renamed and cut"],
)
def test_what_would_come_back_empty_while_its_like_goes_is_refused(live: dict[tuple[str, str], str]) -> None:
    with pytest.raises(Refused, match="look like one, renamed or moved"):
        sent(live)


def test_what_was_dropped_and_what_was_added_are_two_things() -> None:
    live = {key: text for key, text in TABLE.items() if ".b" not in key[1]} | {("column", "public.t.n"): "integer"}
    del live["constraint", "public.t.ck"]
    assert any("drop column n" in sql for sql in sent(live))
    assert any("add column b text default 'x'::text" in sql for sql in sent(live))


def test_an_adopted_rename_is_a_rename_in_every_other_database_too(tmp_path: Path) -> None:
    differences = between(RENAMED | INDEX, TABLE)
    table = VersionTable("public", "alembic_version", ("a1",))
    written, _ = reconcile.adopt(
        differences, ground(RENAMED | INDEX), TABLE, table=table, folder=tmp_path, home=tmp_path
    )
    text = str(written.arguments["text"])
    assert "alter table public.t rename column b to c" in text.partition("def downgrade")[0]
    assert "alter table public.t rename column c to b" in text.partition("def downgrade")[2]
    assert "drop column" not in text


@pytest.mark.parametrize(
    "sql",
    [
        "select ':a', ':a:', ':a:b', 'x:y', 1::int, '10:30:00', a[1:2], '%s %%', ':$x'",
        r"select '\:a', '\\:a', '\::a', '\: b', E'\\:a', ':'",
        'select ":q", """ /* :note */ -- :end',
    ],
)
def test_a_colon_in_an_adopted_statement_is_no_parameter(sql: str) -> None:
    sent_ = sqlalchemy.text(reconcile._bindless(sql)).compile(dialect=postgresql.dialect())
    assert str(sent_).replace("%%", "%") == sql

"""Every .sql file of mend keeps its own contract, and a broken one is named."""

from __future__ import annotations

import importlib.resources
import re
from pathlib import Path

import pytest
import sqlalchemy
from mend import errors
from mend.database import queries

SQL = Path(str(importlib.resources.files("mend"))) / "sql"
FILES = sorted(str(path.relative_to(SQL)) for path in SQL.rglob("*.sql"))
GOOD = """-- Which rows?
-- binds: low int8, names text[] (quoted, each)
-- columns: id int8, wait_s float8 (seconds),
--   at timestamptz (UTC)
-- needs: PostgreSQL >= 13

-- a comment of the body
select 1
"""


def test_a_header_is_read_whole() -> None:
    query = queries.parse("x/y", GOOD)
    assert query.question == "Which rows?"
    assert query.binds == (queries.Field("low", "int8"), queries.Field("names", "text[]", "quoted, each"))
    assert [(column.name, column.unit) for column in query.columns] == [
        ("id", ""),
        ("wait_s", "seconds"),
        ("at", "UTC"),
    ]
    assert query.needs == "PostgreSQL >= 13"
    assert query.sql == "-- a comment of the body\nselect 1\n"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("-- Which rows?", "-- These rows", "line 1"),
        ("-- Which rows?\n", "", "line 1"),
        ("-- binds: low int8, names text[] (quoted, each)\n", "", "line 2"),
        ("-- binds:", "-- bind:", "line 2"),
        ("-- columns:", "-- column:", "line 3"),
        ("-- needs: PostgreSQL >= 13", "-- needs:", "line 4"),
        ("-- needs: PostgreSQL >= 13", "-- needs: x\n-- author: me", "none of ours"),
        ("low int8", "low", "'low'"),
        ("low int8", "names int8", "twice"),
        ("-- a comment of the body\nselect 1\n", "", "has no SQL"),
        ("id int8, wait_s float8 (seconds),\n--   at timestamptz (UTC)", "none", "has no columns"),
    ],
)
def test_a_header_that_is_not_whole_names_the_file(old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(errors.QueryFileBroken, match=rf"x/y\.sql is broken: .*{says}"):
        queries.parse("x/y", GOOD.replace(old, new))


@pytest.mark.parametrize(
    "name",
    ["catalog/nothing", "nothing/here", "catalog", "../catalog/objects", "catalog/Objects", "catalog/objects.sql"],
)
def test_a_question_that_is_not_there_is_an_error(name: str) -> None:
    with pytest.raises(errors.QueryFileBroken, match="The question was not asked"):
        queries.question(name)


@pytest.mark.parametrize("file", FILES)
def test_every_file_keeps_the_contract_of_its_header(file: str) -> None:
    name = re.sub(r"(\.pg\d+)?\.sql$", "", file)
    query = queries.parse(name, (SQL / file).read_text(encoding="utf-8"))
    used = set(sqlalchemy.text(query.sql).compile().params)
    assert used == {bind.name for bind in query.binds}
    forbidden = (
        r"pg_(terminate|cancel)_backend|pg_reload_conf|setval|nextval|pg_switch_wal|lo_(un)?link|dblink|pg_read_file"
    )
    assert not re.search(forbidden, query.sql) or query.name.startswith("execute/")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package directory of our own, so that a test can put any .sql file into it."""
    monkeypatch.setattr(importlib.resources, "files", lambda _: tmp_path)
    queries._question.cache_clear()
    (tmp_path / "sql" / "here").mkdir(parents=True)
    yield tmp_path / "sql" / "here"
    queries._question.cache_clear()


def write(folder: Path, file: str, *, binds: str = "none", columns: str = "a int4", sql: str = "select 1 as a") -> None:
    text = f"-- What?\n-- binds: {binds}\n-- columns: {columns}\n-- needs: PostgreSQL >= 13\n{sql}\n"
    (folder / file).write_text(text, encoding="utf-8")


def test_the_newest_variant_that_the_server_can_run_is_chosen(folder: Path) -> None:
    for file in ("q.sql", "q.pg15.sql", "q.pg17.sql", "q_other.pg18.sql"):
        write(folder, file, sql=f"select 1 as a -- {file}")
    chosen = {
        v: queries.question("here/q", version_num=v).sql.split("-- ")[1].strip()
        for v in (0, 140011, 150002, 160000, 170000, 180006)
    }
    assert chosen == {
        0: "q.sql",
        140011: "q.sql",
        150002: "q.pg15.sql",
        160000: "q.pg15.sql",
        170000: "q.pg17.sql",
        180006: "q.pg17.sql",
    }


def connect(database: str) -> sqlalchemy.Connection:
    return sqlalchemy.create_engine(database, poolclass=sqlalchemy.NullPool).connect()


TYPED = {
    "i": ("int8", "9007199254740993", "Int64"),
    "t": ("text", "'ü'", "str"),
    "f": ("float8", "1.5", "float64"),
    "b": ("bool", "true", "boolean"),
    "at": ("timestamptz", "'2024-07-01 12:00+02'", "datetime64[us, UTC]"),
    "l": ("int4[]", "array[1, 2]", "object"),
    "n": ("numeric", "1.10", "object"),
}


@pytest.mark.parametrize("where", ["", "where false", "union all select null, null, null, null, null, null, null"])
def test_columns_and_dtypes_come_from_the_header_also_when_empty_or_null(
    folder: Path, database: str, where: str
) -> None:
    columns = ", ".join(f"{name} {type_name}" for name, (type_name, _, _) in TYPED.items())
    values = ", ".join(f"cast({value} as {type_name}) as {name}" for name, (type_name, value, _) in TYPED.items())
    write(folder, "typed.sql", columns=columns, sql=f"select {values} {where}")
    with connect(database) as conn:
        frame = queries.frame(conn, "here/typed")
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        name: dtype for name, (_, _, dtype) in TYPED.items()
    }
    assert frame.attrs["question"] == "What?"
    assert "select cast" in frame.attrs["sql"]
    if not where:
        assert frame["i"][0] == 9007199254740993
        assert frame["at"][0].isoformat() == "2024-07-01T10:00:00+00:00"


def test_binds_are_values_never_text(folder: Path, database: str) -> None:
    write(folder, "bound.sql", binds="name text", columns="said text", sql="select cast(:name as text) as said")
    hostile = "'; drop table x; -- %s :name"
    with connect(database) as conn:
        assert queries.frame(conn, "here/bound", name=hostile)["said"].tolist() == [hostile]


@pytest.mark.parametrize("given", [{}, {"nam": "x"}, {"name": "x", "more": 1}])
def test_a_bind_that_is_missing_or_too_many_is_an_error(folder: Path, database: str, given: dict[str, object]) -> None:
    write(folder, "bound.sql", binds="name text", columns="said text", sql="select cast(:name as text) as said")
    with connect(database) as conn, pytest.raises(errors.QueryFileBroken, match="needs the binds"):
        queries.frame(conn, "here/bound", **given)


def test_a_bind_that_the_header_does_not_declare_is_an_error(folder: Path, database: str) -> None:
    write(folder, "bound.sql", columns="said text", sql="select cast(:name as text) as said")
    with connect(database) as conn, pytest.raises(errors.QueryFileBroken, match="declares the binds"):
        queries.frame(conn, "here/bound", name="x")


def test_an_answer_with_other_columns_is_an_error(folder: Path, database: str) -> None:
    write(folder, "other.sql", columns="a int4, b int4", sql="select 1 as a, 2 as c")
    with connect(database) as conn, pytest.raises(errors.QueryFileBroken, match="promises the columns"):
        queries.frame(conn, "here/other")

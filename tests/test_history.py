"""Reading a project's files and version rows: nothing that is in them may stop the report."""

from __future__ import annotations

import sys
from pathlib import Path

import projects
import pytest
import sqlalchemy
from mend.errors import PrivilegeMissing, ProjectBroken, RevisionNotFound
from mend.histories import history
from projects import revision
from sqlalchemy.pool import NullPool


def read(folder: Path, revisions: dict[str, str]) -> history.History:
    return history.read(projects.project(folder, revisions).alembic_ini)


def test_revisions_are_read_with_their_parents_and_come_parents_first(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {
            "z": revision("a1", None),
            "y": revision("b1", "a1"),
            "x": revision("c1", ("b1", "b2")),
            "w": revision("b2", "a1"),
        },
    )
    assert list(found.frame()["revision"]) == ["a1", "b1", "b2", "c1"]
    assert found.frame()["down_revision"].iloc[3] == "b1, b2"
    assert found.heads == ("c1",)
    assert not found.broken
    assert not found.missing_parents


def test_pending_revisions_are_those_that_no_row_implies(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {
            "a": revision("a1", None),
            "b": revision("b1", "a1"),
            "c": revision("c1", "a1"),
            "d": revision("d1", ("b1", "c1")),
        },
    )
    assert history.pending(found, ["b1"]) == ("c1", "d1")
    assert history.pending(found, []) == ("a1", "b1", "c1", "d1")
    assert history.pending(found, ["d1"]) == ()
    assert history.pending(found, ["of_another_branch"]) == ("a1", "b1", "c1", "d1")


def test_a_dependency_counts_as_an_ancestor_also_by_its_label(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {
            "a": revision("a1", None, head="branch_labels = ('core',)"),
            "b": revision("b1", None, head="depends_on = 'core'"),
        },
    )
    assert history.pending(found, ["b1"]) == ()
    assert found.missing_parents == {}


@pytest.mark.parametrize(
    ("text", "problem", "revision_id"),
    [
        (revision("b1", "a1").replace("def upgrade", "def upgrade(:\n"), "syntax error in line", "b1"),
        ("<<<<<<< HEAD\n" + revision("b1", "a1") + ">>>>>>> theirs\n", "merge conflict marker in line 1", "b1"),
        (revision("b1", "gone"), "missing: gone", "b1"),
        (revision("b" * 33, "a1"), "33 characters", "b" * 33),
        (revision("a1", None), "2 files have this id", "a1"),
        ("import os\n", "no revision id", ""),
        ("x = 1\0\n", "syntax error in line", ""),
        (revision("b1", "a1").replace("revision = 'b1'", "revision = 'b' + str(1)"), "revision is computed", ""),
        (revision("b1", "a1").split("def upgrade")[0], "no upgrade()", "b1"),
    ],
    ids=["syntax", "merge marker", "missing parent", "long id", "duplicate id", "no id", "null byte", "computed", "no upgrade"],
)  # fmt: skip
def test_a_broken_file_is_reported_and_the_others_are_read(
    tmp_path: Path, text: str, problem: str, revision_id: str
) -> None:
    found = read(tmp_path, {"first": revision("a1", None), "second": text})
    broken = [one for one in found.broken if one.path.name == "second.py"]
    assert len(broken) == 1
    assert problem in broken[0].problem
    assert "None" not in broken[0].problem
    assert broken[0].id == revision_id
    assert "a1" in found.revisions


def test_a_file_that_is_not_utf8_is_reported(tmp_path: Path) -> None:
    project = projects.project(tmp_path, {"a": revision("a1", None)})
    (tmp_path / "migrations/versions/b.py").write_bytes(revision("b1", "a1").encode() + b"# \xff\xfe\n")
    found = history.read(project.alembic_ini)
    assert [(one.id, one.problem) for one in found.broken] == [("b1", found.broken[0].problem)]
    assert "not UTF-8" in found.broken[0].problem


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbf" + revision("b1", "a1").encode(),
        b"# -*- coding: latin-1 -*-\n# \xe9\n" + revision("b1", "a1").encode(),
        revision("b1", "a1").replace("\n", "\r\n").encode(),
    ],
    ids=["byte order mark", "declared encoding", "CRLF"],
)
def test_what_python_can_read_is_not_broken(tmp_path: Path, raw: bytes) -> None:
    project = projects.project(tmp_path, {"a": revision("a1", None)})
    (tmp_path / "migrations/versions/b.py").write_bytes(raw)
    found = history.read(project.alembic_ini)
    assert (found.broken, found.heads) == ((), ("b1",))


def test_a_cycle_ends(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {"a": revision("a1", "c1"), "b": revision("b1", "a1"), "c": revision("c1", "b1"), "d": revision("d1", None)},
    )
    assert found.cycles == ("a1", "b1", "c1")
    assert history.pending(found, []) == ("d1", "a1", "b1", "c1")


def test_an_unambiguous_beginning_names_a_revision_and_an_unknown_name_is_refused(tmp_path: Path) -> None:
    found = read(tmp_path, {"a": revision("abcdef123", None)})
    assert found.get("abcd").id == "abcdef123"
    with pytest.raises(RevisionNotFound, match="'nope'"):
        found.get("nope")


def test_the_digest_follows_every_file_that_matters(tmp_path: Path) -> None:
    project = projects.project(tmp_path, {"a": revision("a1", None)})
    seen = {history.read(project.alembic_ini).digest}
    for file in ("alembic.ini", "migrations/env.py", "migrations/versions/a.py"):
        (tmp_path / file).write_text((tmp_path / file).read_text() + "\n# another comment\n")
        seen.add(history.read(project.alembic_ini).digest)
    assert len(seen) == 4


def test_a_package_path_is_found_without_an_import(tmp_path: Path) -> None:
    package = tmp_path / "shop" / "db"
    (package / "scripts" / "versions").mkdir(parents=True)
    for folder in (tmp_path / "shop", package):
        (folder / "__init__.py").write_text("raise RuntimeError('never import me')\n")
    (package / "scripts/versions/a.py").write_text(revision("a1", None))
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = shop.db:scripts\nprepend_sys_path = .\n")
    assert list(history.read(tmp_path / "alembic.ini").revisions) == ["a1"]


@pytest.mark.parametrize(
    "option",
    ["version_locations = %(here)s/one %(here)s/two", "version_locations = %(here)s/one:%(here)s/two\nversion_path_separator = :",
     "version_locations = one\n  two\npath_separator = newline", "version_locations = %(here)s/one, two"],
)  # fmt: skip
def test_several_version_locations_are_read(tmp_path: Path, option: str) -> None:
    for name, text in (("one", revision("a1", None)), ("two", revision("b1", "a1"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.py").write_text(text)
    (tmp_path / "migrations").mkdir()
    (tmp_path / "alembic.ini").write_text(f"[alembic]\nscript_location = migrations\n{option}\n")
    assert set(history.read(tmp_path / "alembic.ini").revisions) == {"a1", "b1"}


@pytest.mark.parametrize(
    ("ini", "says"),
    [(None, "cannot be read"), ("[alembic\n", "cannot be read"), ("[loggers]\nkeys=\n", "no script_location"), ("[alembic]\nscript_location = gone\n", "does not exist")],
)  # fmt: skip
def test_a_missing_or_broken_alembic_ini_says_what_to_do(tmp_path: Path, ini: str | None, says: str) -> None:
    if ini is not None:
        (tmp_path / "alembic.ini").write_text(ini)
    with pytest.raises(ProjectBroken, match=says):
        history.read(tmp_path / "alembic.ini")


def test_a_bare_percent_in_an_address_does_not_matter(tmp_path: Path) -> None:
    project = projects.project(tmp_path, {"a": revision("a1", None)})
    project.alembic_ini.write_text(projects.INI + "sqlalchemy.url = postgresql://u:p%40ss@h/db\n")
    assert list(history.read(project.alembic_ini).revisions) == ["a1"]


def test_version_rows_are_found_in_every_schema_and_under_every_name(database: str) -> None:
    with sqlalchemy.create_engine(database, poolclass=NullPool).begin() as conn:
        for sql in ("create schema app", "create schema \"Odd name\"", "create table app.alembic_version (version_num varchar(32) primary key)",
                    "create table \"Odd name\".my_versions (version_num varchar(32))", "create table other (version_num int)",
                    "create table third (version_num text, more int)",
                    "insert into app.alembic_version values ('b1'), ('a1')", "insert into \"Odd name\".my_versions values ('z')"):  # fmt: skip
            conn.exec_driver_sql(sql)
        rows = history.version_rows(conn)
        assert rows.to_numpy().tolist() == [
            ["Odd name", "my_versions", "z"],
            ["app", "alembic_version", "a1"],
            ["app", "alembic_version", "b1"],
        ]
        assert list(history.version_tables(conn, configured="third")["table"]) == [
            "my_versions",
            "alembic_version",
            "third",
        ]


def test_an_empty_database_has_no_version_rows_but_the_columns(database: str) -> None:
    with sqlalchemy.create_engine(database, poolclass=NullPool).connect() as conn:
        assert list(history.version_rows(conn).columns) == ["schema", "table", "version_num"]
        assert history.version_rows(conn).empty


def test_a_version_table_that_may_not_be_read_is_never_taken_for_empty(database: str) -> None:
    with sqlalchemy.create_engine(database, poolclass=NullPool).connect() as conn:
        conn.exec_driver_sql("create table alembic_version (version_num varchar(32))")
        conn.exec_driver_sql("create role mend_test_reader")
        conn.exec_driver_sql("set role mend_test_reader")
        with pytest.raises(PrivilegeMissing, match=r"may not read public\.alembic_version"):
            history.version_rows(conn)
        conn.rollback()


LINTED = """
op.add_column("t", sa.Column("c", sa.Integer))
conn = op.get_bind()
conn.commit()
op.execute("COMMIT")
session = sa.orm.Session(bind=conn)
session.commit()
with op.get_context().autocommit_block():
    op.create_index("ix", "t", ["c"])
try:
    op.drop_table("gone")
except Exception:
    pass
helper(conn)
"""


def test_what_loses_a_version_row_is_found_by_reading(tmp_path: Path) -> None:
    text = revision("a1", None, LINTED) + "def helper(conn):\n    sa.create_engine('x').connect()\n"
    project = projects.project(tmp_path, {"a": text}, env=projects.SQL_FIRST)
    found = history.lint(history.read(project.alembic_ini))
    first = text.splitlines().index("def upgrade():") + 1
    in_file = found[found["file"].str.endswith("a.py")]
    assert [(line - first, finding) for line, finding in in_file[["line", "finding"]].itertuples(index=False)] == [
        (3, "commit"), (4, "commit_text"), (7, "autocommit_in_the_middle"), (9, "swallowed_exception"), (15, "own_engine"),
    ]  # fmt: skip
    assert list(found[found["file"].str.endswith("env.py")]["finding"]) == ["sql_before_configure"]


def test_a_clean_project_has_no_findings_and_the_frame_keeps_its_columns(tmp_path: Path) -> None:
    project = projects.project(tmp_path, {"a": revision("a1", None, projects.ORDERS)})
    found = history.lint(history.read(project.alembic_ini))
    assert found.empty
    assert list(found.columns) == ["file", "line", "finding", "says"]


def test_the_interpreter_is_the_configured_one_then_the_venv_beside_then_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    ini = tmp_path / "alembic.ini"
    assert history.find_python(ini) == Path(sys.executable)
    beside = tmp_path / ".venv/bin/python"
    beside.parent.mkdir(parents=True)
    beside.symlink_to(sys.executable)
    assert history.find_python(ini) == beside
    assert history.find_python(ini, sys.executable) == Path(sys.executable)
    with pytest.raises(ProjectBroken, match="not a Python interpreter"):
        history.find_python(ini, "nowhere/python")

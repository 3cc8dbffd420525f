"""mend lint: what is found, what is not, and the exit codes for CI."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import projects
import pytest
from fix_runs import Desk
from mend.histories import history, lint_project, squawk
from mend.lab import shop as shop_room
from projects import revision

DOWN = "\ndef downgrade():\n    {}\n"


def found(folder: Path, files: dict[str, str]) -> list[tuple[str, str]]:
    past = history.read(projects.project(folder, files).alembic_ini)
    return [(Path(file).name, finding) for file, _, finding, _ in lint_project.findings(past)]


def reversible(name: str, down: str | None, up: str = "pass", back: str = "pass") -> str:
    return revision(name, down, up) + DOWN.format(back.replace("\n", "\n    "))


CLEAN = {
    "a": reversible("a1", None, 'op.create_table("t", sa.Column("id", sa.Integer))', 'op.drop_table("t")'),
    "b": reversible("b1", "a1", 'op.add_column("t", sa.Column("c", sa.Integer))', 'op.drop_column("t", "c")'),
}


@pytest.mark.parametrize(
    ("file", "finding"),
    [
        (reversible("c1", "gone1"), "missing_parent"),
        (reversible("b1", "a1", "op.f(1)"), "duplicate_id"),
        (reversible("c" * 33, "b1"), "id_too_long"),
        (reversible("c1", "a1"), "several_heads"),
        (reversible("c1", "c1"), "cycle"),
        ("<<<<<<< HEAD\n" + reversible("c1", "b1"), "broken_file"),
        (revision("c1", "b1", 'op.drop_table("t")'), "downgrade_missing"),
        (reversible("c1", "b1", 'op.drop_column("t", "c")'), "downgrade_does_nothing"),
        (reversible("c1", "b1", 'op.drop_column("t", "c")', "return"), "downgrade_does_nothing"),
        (reversible("c1", "b1", 'op.add_column("t", sa.Column("d", sa.Integer))', 'op.drop_column("t", "c")'), "downgrade_destroys"),
        (reversible("c1", "b1", 'op.create_index("ix", "t", ["c"])', 'op.drop_table("t")'), "downgrade_destroys"),
        (reversible("c1", "b1", 'op.create_index("ix", "t", ["c"])', 'op.execute("DELETE FROM t")'), "downgrade_deletes_rows"),
        (reversible("c1", "b1", 'op.create_index("ix", "t", ["c"])', 'op.execute("TRUNCATE t RESTART IDENTITY CASCADE")'), "downgrade_deletes_rows"),
        (reversible("c1", "b1", 'op.create_index("ix", "t", ["c"])', 'op.execute("DROP TABLE IF EXISTS t CASCADE")'), "downgrade_destroys"),
        (reversible("c1", "b1", 'op.create_index("ix", "t", ["c"])', 'op.execute(\'alter table "t" drop column "c"\')'), "downgrade_destroys"),
        (reversible("c1", "b1", 'op.create_table(table_name="u")', 'op.drop_column(table_name="t", column_name="c")'), "downgrade_destroys"),
        (reversible("c1", "b1", 'for name in ("t", "u"):\n    with op.batch_alter_table(name) as batch:\n        batch.add_column(sa.Column("d", sa.Integer))', 'op.drop_table("t")'), "downgrade_destroys"),
        (reversible("c1", "b1", "op.get_bind().commit()"), "commit"),
        (reversible("c1", "b1", 'op.execute("COMMIT")'), "commit_text"),
        (reversible("c1", "b1", 'op.f(1)\nwith op.get_context().autocommit_block():\n    op.create_index("ix", "t", ["c"])\nop.drop_table("u")', "raise NotImplementedError"), "autocommit_in_the_middle"),
    ],
    ids=lambda one: one if len(one) < 30 else "",
)  # fmt: skip
def test_each_finding_is_found(tmp_path: Path, file: str, finding: str) -> None:
    assert finding in {kind for name, kind in found(tmp_path, {**CLEAN, "c": file}) if name == "c.py"}


@pytest.mark.parametrize(
    "file",
    [
        reversible("c1", "b1", 'op.rename_table("t", "u")', 'op.rename_table("u", "t")'),
        reversible("c1", "b1", 'op.execute("CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC; SELECT 1; END")', 'op.execute("DROP FUNCTION f")'),
        reversible("c1", "b1", 'try:\n    kind = op.get_bind().dialect.name + op.impl.name\nexcept (AttributeError, KeyError):\n    kind = ""'),
        reversible("c1", "b1", 'op.create_table(table_name="u")\nop.add_column(table_name="t", column=sa.Column("d", sa.Integer))',
                   'op.execute("alter table t drop column d")\nop.drop_table(table_name="u")\nop.execute("select 1")'),
        reversible("c1", "b1", 'op.execute(sqltext="create table v ()")', 'op.execute("drop table v")'),
        reversible("c1", "b1", 'op.alter_column("t", "c", new_column_name="d")\nop.add_column("t", sa.Column("c", sa.Integer))', 'op.drop_column("t", "c")'),
        reversible("c1", "b1", 'for name in ("t", "u"):\n    with op.batch_alter_table(name) as batch:\n        batch.add_column(sa.Column("d", sa.Integer))', 'op.drop_column("t", "d")'),
        reversible("c1", "b1", 'for name in ("x", "y"):\n    op.create_table(name)', 'op.drop_table("x")\nop.drop_table("y")'),
        reversible("c1", "b1", 'op.execute("CREATE TABLE u (id int)")', 'op.drop_table("u")'),
        reversible("c1", "b1", 'op.execute("UPDATE t SET c = 1")'),
        reversible("c1", "b1", 'op.drop_column("t", "c")', "raise NotImplementedError"),
        reversible("c1", "b1", 'with op.batch_alter_table("t") as batch:\n    batch.add_column(sa.Column("d", sa.Integer))\nwith op.batch_alter_table("u") as batch:\n    batch.add_column(sa.Column("e", sa.Integer))',
                   'with op.batch_alter_table("u") as batch:\n    batch.drop_column("e")\nwith op.batch_alter_table("t") as batch:\n    batch.drop_column("d")'),
        reversible("c1", "b1", 'op.get_bind().commit()  # mend: ignore'),
        reversible("c1", "a1").replace("\ndef upgrade", "branch_labels = ('x',)\ndef upgrade"),
    ],
)  # fmt: skip
def test_what_is_right_is_not_a_finding(tmp_path: Path, file: str) -> None:
    assert found(tmp_path, {**CLEAN, "c": file}) == []


@pytest.mark.parametrize(
    ("package", "location", "wanted"),
    [("optuna", "storages/_rdb/alembic", {("v2.4.0.a.py", "downgrade_does_nothing")})],
)
def test_a_public_history_has_only_true_findings(
    tmp_path: Path, package: str, location: str, wanted: set[tuple[str, str]]
) -> None:
    spec = find_spec(package)
    assert spec
    assert spec.submodule_search_locations
    ini = tmp_path / "alembic.ini"
    ini.write_text(f"[alembic]\nscript_location = {Path(spec.submodule_search_locations[0], location)}\n")
    assert {(Path(f).name, kind) for f, _, kind, _ in lint_project.findings(history.read(ini))} == wanted


def test_the_old_public_history_has_only_true_findings(tmp_path: Path) -> None:
    """JupyterHub's rbac revision drops tables on the way down that another revision, or nobody, made."""
    old = Path(os.environ.get("MEND_OLD_PYTHON", Path(__file__).parents[1] / ".venv-old" / "bin" / "python"))
    package = next(old.parent.parent.glob("lib/python3*/site-packages/jupyterhub"), None)
    if package is None:
        pytest.skip("the old stack is not installed: `make setup` builds it")
    ini = tmp_path / "alembic.ini"
    ini.write_text(f"[alembic]\nscript_location = {package / 'alembic'}\n")
    rows = lint_project.findings(history.read(ini))
    assert {(Path(f).name, kind) for f, _, kind, _ in rows} == {("833da8570507_rbac.py", "downgrade_destroys")}


def test_exit_codes_for_ci(desk: Desk, tmp_path: Path) -> None:
    clean = projects.project(tmp_path / "clean", CLEAN)
    assert desk.here("lint", "-a", str(clean.alembic_ini)).code == 0
    forked = projects.project(tmp_path / "forked", {**CLEAN, "c": reversible("c1", "a1")})
    ran = desk.here("lint", "-a", str(forked.alembic_ini))
    assert ran.code == 2
    assert {one["finding"] for one in ran.document["findings"]} == {"several_heads"}
    assert all(one["file"].startswith("migrations/versions/") and one["line"] for one in ran.document["findings"])
    assert desk.here("lint", "-a", str(tmp_path / "none.ini")).code == 1
    assert desk.here("lint", "-a", str(clean.alembic_ini), "--since", "nothing").code == 1


def test_squawk_reads_the_sql_of_the_newest_revisions(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = shop_room.check_out(tmp_path / "shop", projects.NOWHERE)
    ran = desk.here("lint", "-a", str(project.alembic_ini))
    if squawk.program() is None:
        assert ran.document["squawk"] == {
            "ran": False,
            "why": "squawk is not installed (pip install squawk-cli)",
            "revisions": [],
        }
        return
    assert ran.document["squawk"]["revisions"] == [shop_room.HEAD]
    kinds = {one["finding"] for one in ran.document["findings"]}
    assert "squawk:adding-foreign-key-constraint" in kinds


def test_sql_is_rendered_without_a_connection(tmp_path: Path) -> None:
    """A stand-in for squawk that finds nothing: what is looked at is that alembic's SQL comes to it, and from where not."""
    seen = tmp_path / "seen"
    program = tmp_path / "bin" / "squawk"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nfor last; do :; done\ncp "$last" "{seen}"\necho "[]"\n')
    program.chmod(0o755)
    shop = shop_room.check_out(tmp_path / "shop", projects.NOWHERE)
    past = history.read(shop.alembic_ini)
    online = projects.project(tmp_path / "online", CLEAN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(squawk, "program", lambda: program)
        asked = history.Project(shop.alembic_ini, history.find_python(shop.alembic_ini))
        assert squawk.look(asked, past, past.heads).why == ""
        assert "fk_orders_coupon_code" in seen.read_text()
        assert "alembic_version" in seen.read_text()
        refused = squawk.look(online, history.read(online.alembic_ini), ["b1"])
    assert "opens a connection" in refused.why

from __future__ import annotations

import ast
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, LiteralString

import alembic
import psycopg
import pytest
from fix_shop import Broken
from mend import files
from mend.diagnosis import Prevention
from mend.errors import OutcomeUnknown, PlanIsStale
from mend.execution import resolve
from mend.histories import history, lint
from mend.histories.history import History
from mend.histories.retryable import rewrite
from mend.histories.revisions import Revision
from mend.journal import sha256
from mend.lab import failed_migration
from mend.lab.shop import HEAD, HERE, Project, plain
from mend.plan import Plan, from_record
from mend.record import show
from mend.repairs import patch

NOW = alembic.__version__
VERSIONS = [NOW, "1.15.2", "1.13.0", ""]
HEADER = "import sqlalchemy as sa\nfrom alembic import op\n\nrevision = 'aaaa'\ndown_revision = None\n\n\n"


def real_files() -> dict[str, str]:
    """Revision files that people, and the lab, really have."""
    found = {
        name: text
        for name, text in vars(failed_migration).items()
        if isinstance(text, str) and "\ndef upgrade()" in text
    }
    optuna = find_spec("optuna")
    assert optuna is not None
    assert optuna.origin is not None
    places = [
        HERE / "migrations" / "versions",
        Path(optuna.origin).parent / "storages" / "_rdb" / "alembic" / "versions",
    ]
    return found | {path.name: path.read_text() for place in places for path in sorted(place.glob("*.py"))}


REAL = real_files()


def upgrade(*lines: str, header: str = HEADER) -> str:
    return (
        header
        + "def upgrade():\n"
        + "".join(f"    {line}\n" for line in lines)
        + "\n\ndef downgrade():\n    op.drop_table('never')\n"
    )


def body(text: str) -> list[str]:
    """The lines of upgrade()."""
    return text.split("def upgrade():\n")[1].split("\n\ndef downgrade")[0].splitlines()


def rewritten(*lines: str, alembic: str = NOW, **given: Any) -> list[str]:
    return [line[4:] for line in body(rewrite(upgrade(*lines, **given), alembic=alembic).text)]


def left(*lines: str, alembic: str = NOW) -> tuple[str, ...]:
    """What is left alone; and then nothing may have been changed."""
    text = upgrade(*lines)
    made = rewrite(text, alembic=alembic)
    assert made.text == text
    return made.left


def project_of(project: Project, revision: str) -> tuple[History, Revision]:
    past = history.read(project.alembic_ini)
    return past, past.get(revision)


def proposed(found: tuple[Prevention, ...]) -> Prevention:
    (one,) = [prevention for prevention in found if prevention.path]
    return one


def query(url: str, sql: LiteralString) -> list[tuple[Any, ...]]:
    with psycopg.connect(plain(url), autocommit=True) as connection:
        return connection.execute(sql).fetchall()


# -- nothing is lost -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", REAL)
def test_a_real_revision_is_only_added_to_and_only_once(name: str, version: str) -> None:
    text = REAL[name]
    made = rewrite(text, alembic=version)
    ast.parse(made.text)
    assert rewrite(made.text, alembic=version).text == made.text
    characters = iter(made.text)
    assert all(one in characters for one in text)  # the old text is what is left once the additions are taken out
    assert made.text.split("def downgrade")[1] == text.split("def downgrade")[1]


@pytest.mark.parametrize("version", VERSIONS)
def test_windows_line_ends_and_a_byte_order_mark_stay(shop: Project, version: str) -> None:
    text = "\ufeff" + REAL["UNIQUE_CUSTOMER_EMAIL"].replace("\n", "\r\n")
    path = shop.add_revision("82a5c3e60d17_email", "")
    path.write_bytes(text.encode())
    revision = Revision("82a5c3e60d17", (HEAD,), (), (), path.resolve())
    made = proposed(patch.preventions(history.read(shop.alembic_ini), revision, (), alembic=version)).text
    assert made.startswith("\ufeff")
    assert made.count("\n") == made.count("\r\n") > text.count("\n")


def test_comments_tabs_aliases_and_wide_characters_stay() -> None:
    text = (
        "from alembic import op as ö\nimport sqlalchemy as sa\nfrom functools import cache\n\n\n@cache\ndef upgrade():\n"
        "\tö.create_index('ü_ix', 'bücher', ['ñ'])  # why: ö ü\n"
        "\tö.create_unique_constraint(ö.f('uq'), 'bücher', ['x'])\n\n\ndef downgrade():\n\tpass\n"
    )
    assert rewrite(text, alembic=NOW).text.splitlines()[7:11] == [
        "\tö.create_index('ü_ix', 'bücher', ['ñ'], if_not_exists=True)  # why: ö ü",
        "\t# A retry may find it there: there is no ADD CONSTRAINT IF NOT EXISTS.",
        "\tö.drop_constraint(ö.f('uq'), 'bücher', type_=\"unique\", if_exists=True)",
        "\tö.create_unique_constraint(ö.f('uq'), 'bücher', ['x'])",
    ]


def test_an_argument_takes_the_place_that_the_others_have() -> None:
    assert rewritten("op.drop_table('a',)") == ["op.drop_table('a', if_exists=True)"]
    assert rewritten("op.drop_index(('a'))  # )") == ["op.drop_index(('a'), if_exists=True)  # )"]
    exploded = ["op.create_index(", "    'i',", "    't',", "    ['c'],  # the column", "    # and no more", ")"]
    assert rewritten(*exploded) == [*exploded[:4], "    if_not_exists=True,", *exploded[4:]]
    hanging = ["op.create_index('i', 't',", "                ['c'],", "                unique=True)"]
    assert rewritten(*hanging) == [*hanging[:2], "                unique=True, if_not_exists=True)"]


# -- the rules -----------------------------------------------------------------------------------------------------------


def test_an_interrupted_concurrent_index_is_dropped_first_and_never_passed_over() -> None:
    build = "op.create_index('i', 't', ['c'], schema='s', postgresql_concurrently=True{})"
    for also in ("", ", if_not_exists=True"):
        block = ["with op.get_context().autocommit_block():", "    " + build.format(also)]
        lines = rewritten(*block)
        assert lines[0] == block[0]
        assert lines[1].startswith("    # An interrupted build leaves an INVALID index")
        assert (
            "".join(line.strip() for line in lines[2:-1])
            == "op.drop_index('i', table_name='t', schema='s', if_exists=True, postgresql_concurrently=True)"
        )
        assert lines[-1] == block[1]
    old = rewritten(*block, alembic="1.11")
    assert old[2:4] == ['    op.execute(\'DROP INDEX CONCURRENTLY IF EXISTS "s"."i"\')', block[1]]


def test_each_version_of_alembic_gets_only_what_it_has() -> None:
    lines = ("op.create_index('i', 't', ['c'])", "op.drop_table('t')", "op.drop_column('t', 'c')")
    used = {
        version: " ".join(rewritten(*lines, alembic=version))
        for version in ("", "1.11.3", "1.12.0", "1.13.2", "1.13.3", "1.15.2", "1.16.0")
    }
    assert [text.count("if_not_exists=True") for text in used.values()] == [0, 0, 1, 1, 1, 1, 1]
    assert [text.count("if_exists=True") for text in used.values()] == [0, 0, 0, 0, 1, 1, 2]
    assert [text.count("pg_catalog.") for text in used.values()] == [4, 4, 2, 2, 1, 1, 0]


def test_a_guard_looks_where_the_statement_would_and_keeps_strings_whole() -> None:
    lines = rewritten(
        "op.add_column('T', sa.Column('c', sa.Text(), comment='''one", "    two'''), schema='s')", alembic="1.15"
    )
    assert lines[1] == "if op.get_context().as_sql or not op.get_bind().exec_driver_sql("
    assert "to_regclass('s.\\\"T\\\"') and attname = 'c' and attnum > 0 and not attisdropped" in lines[3]
    assert lines[-2:] == ["    op.add_column('T', sa.Column('c', sa.Text(), comment='''one", "    two'''), schema='s')"]


def test_what_brings_more_than_one_object_is_guarded_as_a_whole() -> None:
    for column in ("sa.ForeignKey('o.id')", "unique=True", "index=True", "sa.Enum('a', name='e')"):
        lines = rewritten(f"op.add_column('t', sa.Column('c', sa.Integer(), {column}))")
        assert "if_not_exists" not in " ".join(lines)
        assert "pg_catalog.pg_attribute" in " ".join(lines)
    assert (
        "is committed apart from it"
        in left(
            "with op.get_context().autocommit_block():",
            "    op.add_column('t', sa.Column('c', sa.Integer(), unique=True))",
        )[0]
    )


def test_a_constraint_is_dropped_first_with_its_own_schema_and_kind() -> None:
    key = "op.create_foreign_key('fk', 'a', 'b', ['x'], ['y'], source_schema='s', referent_schema='r')"
    assert rewritten(key)[1:] == [
        "op.drop_constraint('fk', 'a', type_=\"foreignkey\", schema='s', if_exists=True)",
        key,
    ]
    assert rewritten(key, alembic="1.15")[1:] == [
        'op.execute(\'ALTER TABLE "s"."a" DROP CONSTRAINT IF EXISTS "fk"\')',
        key,
    ]


def test_a_key_that_a_foreign_key_of_the_revision_needs_is_not_dropped() -> None:
    lines = rewritten(
        "op.create_unique_constraint('uq', 'b', ['y'])", "op.create_foreign_key('fk', 'a', 'b', ['x'], ['y'])"
    )
    assert "op.drop_constraint('uq'" not in " ".join(lines)
    assert "conname = 'uq' and convalidated" in " ".join(lines)


def test_what_upgrade_drops_itself_is_not_dropped_twice() -> None:
    lines = rewritten("op.drop_constraint('ck', 't')", "op.create_check_constraint('ck', 't', 'a > 0')")
    assert lines == ["op.drop_constraint('ck', 't', if_exists=True)", "op.create_check_constraint('ck', 't', 'a > 0')"]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (("op.execute('UPDATE t SET a = a * 100')",), "line 9, op.execute('UPDATE t SET a = a * 100')"),
        (("op.create_index(name(), 't', ['c'])",), "a computed name"),
        (("op.create_table(f'{x}_t')",), "a computed name"),
        (("op.create_unique_constraint(None, 't', ['c'])",), "it has no name"),
        (("for t in tables:", "    op.drop_table('a')"), "in a loop"),
        (("[op.drop_column('t', 'a') for c in columns]",), "in a loop"),
        (("op.create_index('i', 't', ['c'], **options)",), "computed arguments"),
        (("with op.batch_alter_table('t') as batch_op:", "    batch_op.drop_column('c')"), "a batch operation"),
        (("op.rename_table('a', 'b')", "op.drop_table('b')"), "renamed in this revision"),
        (("op.alter_column('t', 'a', new_column_name='b')", "op.drop_column('t', 'a')"), "renamed in this revision"),
        (("op.bulk_insert(t, [])",), "op.bulk_insert"),
        (("op.get_bind().execute(sa.text('DELETE FROM t'))",), "DELETE FROM t"),
        (("session.add_all(rows)",), "session.add_all"),
        (("fill()",), "fill()"),
        (("x = 1; op.create_check_constraint('ck', 't', 'a > 0')",), "it shares its line"),
        (
            ("if missing:", "    op.create_index('i', 't', ['c'], postgresql_concurrently=True)"),
            "its condition may take an INVALID index",
        ),
        (("t = op.create_table('t', sa.Column('c', sa.Enum('a', name='e')))",), "it is part of a larger statement"),
    ],
)
def test_what_no_rule_covers_is_left_as_it_is_and_listed(lines: tuple[str, ...], why: str) -> None:
    assert why in " ".join(left(*lines))


def test_reading_and_repeatable_calls_are_not_listed() -> None:
    assert (
        left(
            "bind = op.get_bind()",
            "bind.execute(sa.text('SELECT 1'))",
            "op.alter_column('t', 'c', nullable=False)",
            "op.execute('COMMENT ON TABLE t IS NULL')",
        )
        == ()
    )


def test_a_constant_of_the_module_is_a_name_and_a_variable_is_not() -> None:
    header = HEADER + "TABLE = 't'\n\n\n"
    assert rewritten("op.drop_table(TABLE)", header=header) == ["op.drop_table(TABLE, if_exists=True)"]
    assert rewritten("op.drop_table(TABLE)", header=header + "TABLE = 'u'\n\n\n") == ["op.drop_table(TABLE)"]


def test_no_sql_that_names_tables_is_added_where_schemas_are_translated() -> None:
    text = upgrade("op.add_column('t', sa.Column('c', sa.Text()))")
    made = rewrite(text, alembic="1.15", translated=True)
    assert made.text == text
    assert "its schema is translated" in made.left[0]


# -- preventions ---------------------------------------------------------------------------------------------------------


def test_findings_come_with_file_line_and_remedy_then_the_patch_then_the_split(shop: Project) -> None:
    shop.add_revision("4d7f20c91be6_delivery_slots", REAL["DELIVERY_SLOTS"])
    finding, change, split = patch.preventions(*project_of(shop, "4d7f20c91be6"), (), alembic=NOW)
    assert finding.says.startswith("migrations/versions/4d7f20c91be6_delivery_slots.py:25 autocommit_block()")
    assert change.diff.startswith("--- a/migrations/versions/4d7f20c91be6_delivery_slots.py\n+++ b/migrations/")
    assert f"made for Alembic {NOW}" in change.says
    assert "line 23, op.execute(\"UPDATE shipments SET delivery_slot = 'morning'" in change.says
    assert split.diff.count("@@ ") == 3
    assert "+        op.create_index(" in split.diff
    assert split.path == ""
    assert "op.drop_index" in show.prevention([finding, change, split]).text


def test_sql_before_configure_is_told_how_to_do_it_right_and_needs_no_patch(incident: Callable[..., Broken]) -> None:
    broken = incident("env_order")
    (finding,) = patch.preventions(*project_of(broken.project, "17e8d4b5a60c"), (), alembic=NOW)
    env = broken.project.env_py
    line = next(n for n, text in enumerate(env.read_text().splitlines(), 1) if "SET lock_timeout" in text)
    assert finding.says.startswith(f"migrations/env.py:{line} ")
    assert "SET LOCAL" in finding.says
    text = env.read_text()
    env.write_text(text.replace("4s'\"))\n", "4s'\"))\n        connection.commit()\n"))
    assert patch.preventions(*project_of(broken.project, "17e8d4b5a60c"), (), alembic=NOW) == ()
    assert broken.alembic("upgrade", "head").exit_code == 0
    assert query(broken.url, "select version_num from alembic_version") == [("17e8d4b5a60c",)]


def test_set_local_inside_begin_transaction_is_committed(incident: Callable[..., Broken]) -> None:
    broken = incident("env_order")
    env = broken.project.env_py
    lines = env.read_text().splitlines(keepends=True)
    (early,) = [line for line in lines if "SET lock_timeout" in line]
    lines.remove(early)
    place = max(n for n, line in enumerate(lines) if "with context.begin_transaction():" in line)
    lines.insert(place + 1, "    " + early.replace("SET lock", "SET LOCAL lock"))
    env.write_text("".join(lines))
    assert patch.preventions(*project_of(broken.project, "17e8d4b5a60c"), (), alembic=NOW) == ()
    assert broken.alembic("upgrade", "head").exit_code == 0
    assert query(broken.url, "select version_num from alembic_version") == [("17e8d4b5a60c",)]


def test_a_commit_is_not_said_to_be_cured_by_the_patch(incident: Callable[..., Broken]) -> None:
    broken = incident("lost_stamp")
    finding, change = patch.preventions(*project_of(broken.project, "c90b6e2f1d43"), (), alembic=NOW)
    assert "Remove the commit" in finding.says
    assert "does not cure the commit" in change.says


def test_a_patched_file_has_no_further_finding_of_several_operations(shop: Project) -> None:
    path = shop.add_revision("4d7f20c91be6_delivery_slots", REAL["DELIVERY_SLOTS"])
    files.replace(patch.steps(patch.preventions(*project_of(shop, "4d7f20c91be6"), (), alembic=NOW))[0].arguments)
    assert [finding for _, _, finding, _ in lint.lint_files(Path(), [path])] == ["autocommit_in_the_middle"]
    assert not any(one.path for one in patch.preventions(*project_of(shop, "4d7f20c91be6"), (), alembic=NOW))


def test_a_file_that_cannot_be_read_gets_no_patch_and_says_so(shop: Project) -> None:
    path = shop.add_revision("4d7f20c91be6_delivery_slots", REAL["DELIVERY_SLOTS"])
    past, revision = project_of(shop, "4d7f20c91be6")
    for content in (b"def upgrade(:\n", b"# \xe9\n"):
        path.write_bytes(content)
        found = patch.preventions(past, revision, (), alembic=NOW)
        assert not any(one.path for one in found)
        assert "no patch of it is proposed" in found[-1].says


def test_an_object_that_is_there_but_not_as_wanted_is_named(shop: Project) -> None:
    shop.add_revision("4d7f20c91be6_delivery_slots", REAL["DELIVERY_SLOTS"])
    change = SimpleNamespace(kind="column", identity="public.shipments.delivery_slot")
    seen: Any = [
        SimpleNamespace(
            state="DIFFERENT", ran=None, statement=SimpleNamespace(changes=(change,), sql="ALTER TABLE ...")
        )
    ]
    says = proposed(patch.preventions(*project_of(shop, "4d7f20c91be6"), seen, alembic=NOW)).says
    assert "mend it first: column public.shipments.delivery_slot" in says


@pytest.mark.skipif(shutil.which("patch") is None, reason="needs the patch command")
def test_the_diff_is_one_that_patch_takes(shop: Project) -> None:
    for end, newline in (("", "\n"), ("\n", "\r\n")):
        path = shop.add_revision("82a5c3e60d17_email", "")
        path.write_bytes((REAL["UNIQUE_CUSTOMER_EMAIL"].rstrip() + end).replace("\n", newline).encode())
        wanted = proposed(patch.preventions(*project_of(shop, "82a5c3e60d17"), (), alembic=NOW))
        subprocess.run(
            ["patch", "-p1", "--binary"],
            input=wanted.diff.encode(),
            cwd=shop.directory,
            check=True,
            capture_output=True,
        )
        assert path.read_bytes().decode() == wanted.text


# -- the step ------------------------------------------------------------------------------------------------------------


def test_a_step_replaces_the_file_its_undo_puts_it_back_and_an_edit_stops_both(shop: Project) -> None:
    path = shop.add_revision("4d7f20c91be6_delivery_slots", REAL["DELIVERY_SLOTS"]).resolve()
    before = path.read_bytes()
    (step,) = patch.steps(patch.preventions(*project_of(shop, "4d7f20c91be6"), (), alembic=NOW))
    assert (step.kind, step.transactional, step.statements, step.before, step.after) == ("file", False, (), (), ())
    plan = Plan("failed_migration", {}, {}, "resume", steps=(step,))
    assert from_record(plan.as_record()).digest() == plan.digest()
    assert "if_not_exists=True" in show.plan(plan).text
    assert path.read_bytes() == before
    assert resolve.by_content(0, step).state == "not_done"
    files.replace(step.arguments)
    assert resolve.by_content(0, step).state == "done"
    assert sha256(path.read_bytes()) == sha256(str(step.arguments["text"]))
    (back,) = step.undo
    assert resolve.by_content(0, back).state == "not_done"
    files.replace(back.arguments)
    assert path.read_bytes() == before
    path.write_bytes(before + b"# edited\n")
    with pytest.raises(PlanIsStale):
        files.replace(step.arguments)
    with pytest.raises(OutcomeUnknown, match="neither the old text nor the new one"):
        resolve.by_content(0, step)


# -- it works ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [NOW, ""])
def test_the_patched_revision_completes_the_half_applied_shop(incident: Callable[..., Broken], version: str) -> None:
    broken = incident("interrupted_index")
    assert broken.alembic("upgrade", "head").exit_code == 1
    (step,) = patch.steps(patch.preventions(*project_of(broken.project, "4d7f20c91be6"), (), alembic=version))
    files.replace(step.arguments)
    attempt = broken.alembic("upgrade", "head")
    assert attempt.exit_code == 0, attempt.output
    sql: LiteralString = "select indexrelid::regclass::text, indisvalid, indisready from pg_index where indexrelid in ('ix_orders_status_placed_at'::regclass, 'ix_shipments_delivery_slot'::regclass) order by 1"
    assert query(broken.url, sql) == [
        ("ix_orders_status_placed_at", True, True),
        ("ix_shipments_delivery_slot", True, True),
    ]
    assert query(broken.url, "select count(*) from pg_index where not indisvalid") == [(0,)]
    assert query(broken.url, "select count(*) from pg_constraint where conname = 'ck_shipments_delivery_slot'") == [
        (1,)
    ]
    assert query(broken.url, "select version_num from alembic_version") == [("4d7f20c91be6",)]
    assert broken.alembic("upgrade", f"{HEAD}:4d7f20c91be6", "--sql").exit_code == 0


@pytest.mark.parametrize("version", [NOW, ""])
def test_a_patched_revision_can_run_twice_whatever_it_holds(shop: Project, version: str) -> None:
    lines = [
        "op.create_table('notes', sa.Column('id', sa.Integer(), primary_key=True), sa.Column('kind', sa.Enum('a', 'b', name='note_kind')), sa.Column('tag', sa.Text(), index=True))",
        "op.create_table('plain', sa.Column('id', sa.Integer()), sa.Column('code', sa.Text()))",
        "op.create_primary_key('pk_plain', 'plain', ['id'])",
        "op.create_unique_constraint('uq_plain', 'plain', ['code'])",
        "op.add_column('notes', sa.Column('plain_code', sa.Text(), sa.ForeignKey('plain.code'), unique=True))",
        "op.add_column('notes', sa.Column('Old', sa.Text()), schema='public')",
        "op.create_foreign_key('fk_notes', 'notes', 'plain', ['id'], ['id'], ondelete='CASCADE')",
        "op.create_check_constraint('ck', 'notes', \"tag <> 'x'\")",
        "op.create_exclude_constraint('ex', 'plain', (sa.column('code'), '='), using='btree')",
        "op.create_index('ix_plain', 'plain', ['code'], unique=True)",
        "op.drop_index('ix_customers_email', table_name='customers')",
        "op.drop_constraint('ck_orders_total', 'orders', type_='check')",
        "op.drop_column('orders', 'note')",
        "op.drop_table('audit_log')",
        "op.get_bind().commit()",
        "op.execute('SELECT 1 / (SELECT count(*) FROM warehouse_that_is_not_there)')",
    ]
    path = shop.add_revision(
        "aaaa0001_everything", upgrade(*lines).replace("'aaaa'", "'aaaa0001'").replace("= None", f"= '{HEAD}'")
    )
    assert "warehouse_that_is_not_there" in shop.alembic("upgrade", "head").output
    assert query(shop.url, "select count(*) from pg_class where relname = 'plain'") == [(1,)]
    files.replace(patch.steps(patch.preventions(*project_of(shop, "aaaa0001"), (), alembic=version))[0].arguments)
    mended = (
        path.read_text()
        .replace("    op.get_bind().commit()\n", "")
        .replace("(SELECT count(*) FROM warehouse_that_is_not_there)", "1")
    )
    path.write_text(mended)
    objects: LiteralString = "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint where conrelid in ('notes'::regclass, 'plain'::regclass) union all select tablename, indexname, indexdef from pg_indexes where tablename in ('notes', 'plain') order by 1, 2, 3"
    once = query(shop.url, objects)
    attempt = shop.alembic("upgrade", "head")
    assert attempt.exit_code == 0, attempt.output
    assert query(shop.url, objects) == once
    assert query(shop.url, "select version_num from alembic_version") == [("aaaa0001",)]


def test_a_column_of_the_name_in_another_schema_is_not_taken_for_it(shop: Project) -> None:
    lines = [
        "op.add_column('things', sa.Column('c', sa.Text()), schema='tenant')",
        "op.create_table('orders', sa.Column('id', sa.Enum('a', name='e')), schema='tenant')",
    ]
    shop.add_revision(
        "aaaa0001_tenant",
        rewrite(upgrade(*lines).replace("'aaaa'", "'aaaa0001'").replace("= None", f"= '{HEAD}'"), alembic="").text,
    )
    with psycopg.connect(plain(shop.url), autocommit=True) as connection:
        connection.execute("create table things (c text)")
        connection.execute("create schema tenant create table things (id int)")
    assert shop.alembic("upgrade", "head").exit_code == 0
    assert query(
        shop.url, "select attname::text from pg_attribute where attrelid = 'tenant.things'::regclass and attnum > 0"
    ) == [("id",), ("c",)]
    assert query(shop.url, "select to_regclass('tenant.orders')::text") == [("tenant.orders",)]


def test_steps_are_made_of_patches_only() -> None:
    change = Prevention("a patch", "--- a", "/x/r.py", "0", "old", "new")
    assert [step.says for step in patch.steps([Prevention("a finding"), change, replace(change, path="")])] == [
        "Patch r.py, so that a retry is safe"
    ]

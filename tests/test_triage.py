"""Triage: every wording to its failure mode, parameters filled in, and unknown answered with nothing."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mend.database import parameters
from mend.database import target as targets
from mend.errors import PrivilegeMissing, ProjectBroken, TargetUnreachable
from mend.lab.shop import plain
from mend.symptoms import errortext, sign, signatures, signs, triage
from mend.symptoms.signatures import MODES
from mend.symptoms.triage import Finding

RUNNING = "INFO  [alembic.runtime.migration] Running upgrade 1975ea83b712 -> ae1027a6acf, add phone\n"


def slugs(text: str) -> list[str]:
    return [finding.slug for finding in triage.triage(text)]


def best(text: str) -> Finding:
    findings = triage.triage(text)
    assert findings, f"unknown: {text}"
    return findings[0]


# -- every wording of facts 1.2: origin by origin ---------------------------------------------------------------------

WORDINGS = [
    # (text, slug that must come first, parameters that must be filled in)
    (
        'ERROR:  column "email" of relation "users" already exists',
        "failed_migration",
        {"columns": "email", "table": "users"},
    ),
    ('psql:up.sql:3: ERROR:  relation "ix_users_email" already exists', "failed_migration", {}),
    ('ERROR:  42710: type "mood" already exists\nLOCATION:  DefineEnum, typecmds.c:1170', "failed_migration", {}),
    (
        'ERROR:  constraint "ck_total" for relation "orders" already exists',
        "failed_migration",
        {"constraint": "ck_total", "table": "orders"},
    ),
    (
        'psycopg2.errors.InvalidTableDefinition: multiple primary keys for table "t" are not allowed\n',
        "failed_migration",
        {"table": "t"},
    ),
    ('ERROR:  index "uq" is not valid\nLINE 1: ALTER TABLE t ADD CONSTRAINT', "failed_migration", {}),
    (
        'ERROR:  unsafe use of new value "sad" of enum type mood\nHINT:  New enum values must be committed',
        "failed_migration",
        {},
    ),
    ("ERROR:  CREATE INDEX CONCURRENTLY cannot run inside a transaction block", "failed_migration", {}),
    (
        RUNNING
        + "psycopg.errors.InFailedSqlTransaction: current transaction is aborted, commands ignored until end of transaction block",
        "failed_migration",
        {"revision": "ae1027a6acf"},
    ),
    (
        '  File "/v/alembic/runtime/migration.py", line 300, in autocommit_block\n    assert self._transaction is not None\nAssertionError\n',
        "failed_migration",
        {},
    ),
    (
        'ERROR:  could not create unique index "uq_users_email"\nDETAIL:  Key (lower(email))=(ann@example.org) is duplicated.\nSTATEMENT:  ALTER TABLE shop.users ADD CONSTRAINT uq UNIQUE (email)',
        "unique_violation",
        {"constraint": "uq_users_email", "columns": "lower(email)", "table": "shop.users"},
    ),
    (
        'ERROR:  duplicate key value violates unique constraint "users_pkey"\nDETAIL:  Key (id)=(5) already exists.',
        "unique_violation",
        {"constraint": "users_pkey", "columns": "id"},
    ),
    ('ERROR:  cannot create index on partitioned table "p" concurrently', "unique_violation", {"table": "p"}),
    ('ERROR:  duplicate key value violates unique constraint "pg_type_typname_nsp_index"', "migration_conflict", {}),
    (
        'ERROR:  column "email" of relation "users" contains null values',
        "not_null_violation",
        {"columns": "email", "table": "users"},
    ),
    ('ERROR:  column "email" contains null values', "not_null_violation", {"columns": "email"}),
    (
        'null value in column "email" of relation "users" violates not-null constraint\nDETAIL:  Failing row contains (1, null).',
        "not_null_violation",
        {"columns": "email"},
    ),
    ('ERROR:  null value in column "email" violates not-null constraint', "not_null_violation", {"columns": "email"}),
    (
        'ERROR:  check constraint "ck" of relation "users" is violated by some row',
        "not_null_violation",
        {"constraint": "ck", "table": "users"},
    ),
    (
        'ERROR:  new row for relation "users" violates check constraint "ck"',
        "not_null_violation",
        {"constraint": "ck", "table": "users"},
    ),
    (
        'ERROR:  insert or update on table "orders" violates foreign key constraint "fk"\nDETAIL:  Key (user_id, shop_id)=(7, 1) is not present in table "users".',
        "foreign_key_violation",
        {"table": "orders", "constraint": "fk", "columns": "user_id, shop_id", "parent": "users"},
    ),
    (
        'ERROR:  update or delete on table "users" violates RESTRICT setting of foreign key constraint "fk" on table "orders"',
        "foreign_key_violation",
        {"table": "orders"},
    ),
    (
        'ERROR:  there is no unique constraint matching given keys for referenced table "users"',
        "foreign_key_violation",
        {"parent": "users"},
    ),
    (
        'ERROR:  cannot add NOT VALID foreign key on partitioned table "o" referencing relation "u"',
        "foreign_key_violation",
        {"table": "o", "parent": "u"},
    ),
    (
        "ERROR:  deadlock detected\nDETAIL:  Process 4711 waits for ShareLock on transaction 99; blocked by process 4712.\n\tProcess 4712 waits for ShareLock on transaction 98; blocked by process 4711.",
        "deadlock",
        {"pids": "4711, 4712"},
    ),
    ("ERROR:  canceling statement due to lock timeout", "deadlock", {}),
    ('ERROR:  could not obtain lock on relation "users"', "deadlock", {"table": "users"}),
    ("FATAL:  terminating connection due to idle-in-transaction timeout", "deadlock", {}),
    ("FATAL:  terminating connection due to transaction timeout", "deadlock", {}),
    ("FATAL:  terminating connection due to administrator command", "deadlock", {}),
    ("ERROR:  canceling statement due to statement timeout", "slow_migration", {}),
    ("ERROR:  canceling statement due to user request", "slow_migration", {}),
    ('ERROR:  could not extend file "base/5/16384": No space left on device', "slow_migration", {}),
    (
        "ERROR:  cannot drop column email of table users because other objects depend on it\nDETAIL:  view v depends on column email of table users",
        "rollback_failure",
        {"columns": "email", "table": "users"},
    ),
    ("ERROR:  cannot drop type mood because other objects depend on it", "rollback_failure", {}),
    (
        "ERROR:  cannot drop table shop.users because other objects depend on it",
        "rollback_failure",
        {"table": "shop.users"},
    ),
    (
        "ERROR:  cannot alter type of a column used by a view or rule\nDETAIL:  rule _RETURN on view v depends on column",
        "rollback_failure",
        {},
    ),
    ("ERROR:  cannot alter type of a column used by a generated column", "rollback_failure", {}),
    (
        "FAILED: Destination c1 is not a valid downgrade target from current head(s) b1",
        "rollback_failure",
        {"revision": "c1"},
    ),
    ("FAILED: Relative revision -9 didn't produce 9 migrations", "rollback_failure", {}),
    (
        "UserWarning: downgrade -1 from multiple heads is ambiguous; this usage will be disallowed in a future release.",
        "rollback_failure",
        {},
    ),
    (
        '  File "/p/versions/ab12ab12ab12_x.py", line 9, in downgrade\n    raise NotImplementedError()\nNotImplementedError\n',
        "rollback_failure",
        {},
    ),
    ("AttributeError: module 'ab_py' has no attribute 'downgrade'", "rollback_failure", {}),
    (
        "psycopg2.errors.UndefinedColumn: column users.phone does not exist\nLINE 1: SELECT users.phone",
        "version_skew",
        {"columns": "phone"},
    ),
    (
        'asyncpg.exceptions.UndefinedColumnError: column "phone" of relation "users" does not exist',
        "version_skew",
        {"columns": "phone", "table": "users"},
    ),
    (
        "INFO  [alembic.runtime.migration] Generating static SQL\nBEGIN;\n\nALTER TABLE orders DROP COLUMN note;\n\nCOMMIT;",
        "data_loss",
        {"table": "orders"},
    ),
    ("migrations/20.sql:4:1: warning: ban-drop-column: Dropping a column may break existing clients.", "data_loss", {}),
    ('ERROR:  relation "carts" does not exist at character 15', "version_skew", {"table": "carts"}),
    ("ERROR:  cached plan must not change result type", "version_skew", {}),
    (
        'ERROR:  null value in column "language" of relation "users" violates not-null constraint\nSTATEMENT:  INSERT INTO users (email, phone) VALUES ($1, $2)',
        "version_skew",
        {"columns": "language", "table": "users"},
    ),
    (
        'ERROR:  null value in column "email" of relation "users" violates not-null constraint\nSTATEMENT:  INSERT INTO users (email, phone) VALUES ($1, $2)',
        "not_null_violation",
        {"columns": "email", "table": "users"},
    ),
    (
        "asyncpg.exceptions.InvalidCachedStatementError: cached statement plan is invalid due to a database schema or configuration change",
        "version_skew",
        {},
    ),
    ("FAILED: Target database is not up to date.", "version_skew", {}),
    (
        "FAILED: New upgrade operations detected: [('add_column', None, 'users', Column('x'))]",
        "environment_mismatch",
        {},
    ),
    (
        RUNNING + 'sqlalchemy.exc.ProgrammingError: (psycopg.errors.UndefinedTable) relation "carts" does not exist',
        "environment_mismatch",
        {"table": "carts", "revision": "ae1027a6acf"},
    ),
    ("ERROR:  permission denied for schema public", "environment_mismatch", {}),
    ("ERROR:  must be owner of table users", "environment_mismatch", {}),
    ("ERROR:  cannot execute CREATE TABLE in a read-only transaction", "environment_mismatch", {}),
    ('ERROR:  extension "postgis" is not available', "environment_mismatch", {}),
    ("FAILED: Can't locate revision identified by 'deadbeef1234'", "migration_conflict", {"revision": "deadbeef1234"}),
    (
        "alembic.script.revision.ResolutionError: No such revision or branch 'deadbeef1234'",
        "migration_conflict",
        {"revision": "deadbeef1234"},
    ),
    (
        "UserWarning: Revision b1 referenced from b1 -> c1 (head), c is not present\nKeyError: 'b1'",
        "migration_conflict",
        {"revision": "b1"},
    ),
    (
        "  File \"/v/alembic/script/revision.py\", line 245, in _revision_map\n    revision = map_[rev]\nKeyError: 'b1'",
        "migration_conflict",
        {"revision": "b1"},
    ),
    (
        "FAILED: Multiple head revisions are present for given argument 'head'; please specify a specific target revision",
        "migration_conflict",
        {},
    ),
    ("FAILED: Multiple heads are present; please specify a single head revision", "migration_conflict", {}),
    ("UserWarning: Revision b1 is present more than once", "migration_conflict", {"revision": "b1"}),
    (
        "FAILED: Requested revision c1 overlaps with other requested revisions a1",
        "migration_conflict",
        {"revision": "c1"},
    ),
    ("alembic.script.revision.CycleDetected: Cycle is detected in revisions (a1, b1)", "migration_conflict", {}),
    ("Self-loop is detected in revisions (a1)", "migration_conflict", {}),
    (
        "FAILED: Online migration expected to match one row when updating 'a1' to 'b1' in 'alembic_version'; 0 found",
        "migration_conflict",
        {"revision": "b1"},
    ),
    (
        "psycopg.errors.StringDataRightTruncation: value too long for type character varying(32)\n[SQL: UPDATE alembic_version SET version_num='2026_add_a_very_long_name_to_the_users' WHERE alembic_version.version_num = 'a']",
        "migration_conflict",
        {},
    ),
    (
        '  File "/p/versions/ab_x.py", line 3\n    <<<<<<< HEAD\n    ^^\nSyntaxError: invalid syntax\n',
        "migration_conflict",
        {},
    ),
]


@pytest.mark.parametrize(("text", "slug", "filled"), WORDINGS, ids=[text.strip()[:60] for text, _, _ in WORDINGS])
def test_a_wording_names_its_failure_mode_and_fills_in_parameters(text: str, slug: str, filled: dict[str, str]) -> None:
    finding = best(text)
    assert finding.slug == slug
    assert {key: finding.parameters.get(key) for key in filled} == filled


NOISE = "2026-11-20T12:00:00.1234567Z \x1b[36m##[group]Run tests\x1b[0m\nweb_1  | 200 GET /users 12ms\nDEBUG urllib3 connection pool\n"


def dressed(text: str) -> Iterator[tuple[str, str]]:
    """The same text as other tools would show it."""
    yield "as it is", text
    yield (
        "CI log",
        NOISE
        + "".join(f"2026-11-20T12:00:01.{n:07d}Z \x1b[31m{line}\x1b[0m\n" for n, line in enumerate(text.splitlines()))
        + NOISE,
    )
    yield "compose", "".join(f"db-1  | 2026-11-20 12:00:01.123 UTC {line}\n" for line in text.splitlines())
    yield "CRLF", text.replace("\n", "\r\n")
    yield "JSON", '{"level": "error", "message": "' + text.replace('"', '\\"').replace("\n", "\\n") + '"}'


@pytest.mark.parametrize(("text", "slug", "filled"), WORDINGS, ids=[text.strip()[:60] for text, _, _ in WORDINGS])
def test_noise_around_a_wording_changes_nothing(text: str, slug: str, filled: dict[str, str]) -> None:
    for origin, disguised in dressed(text):
        assert slug in slugs(disguised)[:1], origin


@pytest.mark.parametrize("signature", signatures.SIGNATURES, ids=lambda s: s.pattern[:50])
def test_every_signature_is_reached_by_a_wording(signature: signatures.Signature) -> None:
    more = [
        'ERROR:  could not open extension control file "x.control"', 'ERROR:  schema "a" already exists', 'ERROR:  function "f" already exists with same argument types', 'ERROR:  extension "e" already exists',
        RUNNING + 'column "a" of relation "t" does not exist', RUNNING + 'index "ix" does not exist', RUNNING + "server closed the connection unexpectedly",
        'type "citext" does not exist', 'WARNING:  database "shop" has a collation version mismatch', "module 'x_py' has no attribute 'upgrade'",
    ]  # fmt: skip
    assert any(signature.regex.search(errortext.read(text).text) for text in [*(w[0] for w in WORDINGS), *more])


@pytest.mark.parametrize(
    ("driver", "klass"),
    [
        ("psycopg.errors", "UniqueViolation"),
        ("psycopg2.errors", "UniqueViolation"),
        ("asyncpg.exceptions", "UniqueViolationError"),
        ("asyncpg.exceptions._base", "UniqueViolationError"),
    ],
)
def test_a_class_of_any_driver_is_its_sqlstate(driver: str, klass: str) -> None:
    assert "23505" in errortext.read(f"sqlalchemy.exc.IntegrityError: (<class '{driver}.{klass}'>): x").states


@pytest.mark.parametrize(
    "text",
    [
        "ERROR:  23505: x",
        "SQLSTATE 23505",
        "sqlstate: '23505'",
        "SQLSTATE[23505]",
        "(SQLSTATE=23505)",
        "pgcode='23505'",
        'app,shop,1,"ERROR",23505,"duplicate"',
    ],
)
def test_a_sqlstate_is_read_in_every_spelling(text: str) -> None:
    assert "23505" in errortext.read(text).states


def test_a_server_that_speaks_another_language_is_read_by_its_class_with_less_confidence() -> None:
    english = best(RUNNING + '(psycopg.errors.DuplicateColumn) column "email" of relation "users" already exists')
    german = best(RUNNING + "(psycopg.errors.DuplicateColumn) Spalte »email« von Relation »users« existiert bereits")
    assert german.slug == english.slug == "failed_migration"
    assert german.confidence < english.confidence
    assert "not recognised" in german.evidence[0]


def test_a_sqlstate_beside_its_message_raises_the_confidence() -> None:
    text = 'column "email" of relation "users" already exists'
    assert best(f"ERROR:  42701: {text}").confidence > best(f"ERROR:  {text}").confidence


def test_a_notice_that_skips_is_no_error() -> None:
    assert slugs('NOTICE:  relation "users" already exists, skipping') == []


def test_a_missing_version_table_is_no_error() -> None:
    assert slugs('ERROR:  relation "alembic_version" does not exist at character 34') == []


def test_values_of_rows_stay_out_of_every_output() -> None:
    finding = best(
        'could not create unique index "uq"\nDETAIL:  Key (email)=(ann@example.org) is duplicated.\n[SQL: CREATE UNIQUE INDEX uq ON users (email)]'
    )
    assert "ann@example.org" not in str(finding)


def test_the_revision_is_the_last_one_that_ran() -> None:
    text = (
        RUNNING
        + "INFO  [alembic.runtime.migration] Running upgrade ae1027a6acf, b2 -> 00ff00ff00ff\nERROR:  deadlock detected"
    )
    assert best(text).parameters["revision"] == "00ff00ff00ff"


def test_the_revision_of_a_downgrade_is_where_it_was_to_go() -> None:
    text = "INFO  [alembic.runtime.migration] Running downgrade ae1027a6acf -> 1975ea83b712, x\nERROR:  cannot drop type mood because other objects depend on it"
    assert best(text).parameters["revision"] == "1975ea83b712"
    command = "$ alembic -c alembic.ini downgrade base\n"
    assert best(command + text).parameters["revision"] == "base"
    assert "revision" not in best(command.replace("base", "-1") + text).parameters


def test_a_type_that_is_there_after_a_downgrade_was_left_behind_by_it() -> None:
    runs = [
        f"INFO  [alembic.runtime.migration] Running {run}, x\n"
        for run in ("upgrade a1 -> b1", "downgrade b1 -> a1", "upgrade a1 -> b1")
    ]
    assert slugs("".join(runs) + 'ERROR:  type "mood" already exists')[:2] == ["rollback_failure", "failed_migration"]
    assert slugs(runs[2] + 'ERROR:  type "mood" already exists')[:2] == ["failed_migration", "rollback_failure"]


def test_any_error_in_a_downgrade_is_a_rollback_failure_too() -> None:
    text = 'INFO  [alembic.runtime.migration] Running downgrade ae10 -> 1975, x\nERROR:  column "a" of relation "t" contains null values'
    assert set(slugs(text)) == {"rollback_failure", "not_null_violation"}


def test_every_failure_mode_that_triage_names_has_a_runbook() -> None:
    assert set(signatures.MODES) == set(parameters.slugs())


def test_the_command_is_one_that_a_shell_takes() -> None:
    text = RUNNING.replace("ae1027a6acf", "it's;x") + 'ERROR:  column "a" of relation "t" already exists'
    words = shlex.split(best(text).command)
    assert words[:3] == ["mend", "plan", "failed_migration"]
    assert words[-3:] == ["-p", "revision", "it's;x"]


# -- chains -----------------------------------------------------------------------------------------------------------

CAUSES = [
    ('(psycopg.errors.UniqueViolation) could not create unique index "uq"', "unique_violation"),
    ("(psycopg.errors.LockNotAvailable) canceling statement due to lock timeout", "deadlock"),
    ("(psycopg.errors.QueryCanceled) canceling statement due to statement timeout", "slow_migration"),
]


@pytest.mark.parametrize(("cause", "slug"), CAUSES)
def test_already_exists_after_another_error_is_half_applied_first_and_its_cause_second(cause: str, slug: str) -> None:
    text = (
        RUNNING + cause + "\n" + RUNNING + '(psycopg.errors.DuplicateColumn) column "a" of relation "t" already exists'
    )
    assert slugs(text)[:2] == ["failed_migration", slug]
    assert any("earlier error" in line for line in best(text).evidence)


@pytest.mark.parametrize(("cause", "slug"), CAUSES)
def test_an_error_outside_a_transaction_leaves_a_half_applied_revision(cause: str, slug: str) -> None:
    text = RUNNING + cause + "\n[SQL: CREATE UNIQUE INDEX CONCURRENTLY uq ON t (a)]\n"
    assert slugs(text)[:2] == ["failed_migration", slug]


@pytest.mark.parametrize(("cause", "slug"), CAUSES)
def test_an_error_inside_a_transaction_is_rolled_back_and_only_its_own_mode(cause: str, slug: str) -> None:
    text = RUNNING + cause + "\n[SQL: ALTER TABLE t ADD CONSTRAINT uq UNIQUE (a)]\n"
    assert slugs(text)[0] == slug
    assert "failed_migration" not in slugs(text)


def test_an_error_after_already_exists_is_not_its_cause() -> None:
    text = RUNNING + '(psycopg.errors.DuplicateColumn) column "a" of relation "t" already exists\n' + CAUSES[1][0]
    assert not any("earlier error" in line for line in best(text).evidence)


def test_a_revision_run_twice_without_an_error_has_lost_its_stamp() -> None:
    assert slugs(RUNNING + RUNNING) == ["failed_migration"]
    assert slugs(RUNNING + "Traceback (most recent call last):\n" + RUNNING) == []
    fresh = "INFO  [alembic.runtime.migration] Running upgrade  -> 1975ea83b712, first\n"
    assert slugs(fresh + fresh) == []


# -- unknown ----------------------------------------------------------------------------------------------------------

WORDS = [
    "the",
    "error",
    "column",
    "table",
    "users",
    "failed",
    "exit",
    "1",
    "alembic",
    "upgrade",
    "head",
    "null",
    "unique",
    "key",
    "lock",
    "timeout",
    "connection",
    "relation",
    "index",
    "constraint",
    "at",
    "line",
    "KeyError:",
    "Traceback",
    "SQL",
    "INFO",
]


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(), st.binary().map(lambda raw: raw.decode("latin-1")), st.lists(st.sampled_from(WORDS)).map(" ".join)
    )
)
def test_random_text_is_unknown(text: str) -> None:
    assert triage.triage(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "KeyError: 'b1'",
        "Traceback (most recent call last):\n  File \"app.py\", line 1, in <module>\nKeyError: 'id'",
        "SyntaxError: invalid syntax",
        "AssertionError",
        "AttributeError: module 'app' has no attribute 'main'",
        "ERROR 1062 (23000): Duplicate entry '1' for key 'PRIMARY'",
        "ModuleNotFoundError: No module named 'psycopg2'",
        'connection to server at "127.0.0.1", port 5432 failed: Connection refused',
        RUNNING,
        'ERROR:  syntax error at or near "selct"',
        "the column already exists in our spreadsheet, and the deadlock was detected yesterday",
    ],
)
def test_what_is_none_of_our_modes_is_unknown(text: str) -> None:
    assert triage.triage(text) == []


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(WORDINGS), st.text(), st.text())
def test_text_around_a_wording_never_breaks_triage(wording: tuple[str, str, Any], before: str, after: str) -> None:
    findings = triage.triage(f"{before}\n{wording[0]}\n{after}")
    assert findings
    assert all(f.slug in MODES and 0 < f.confidence < 1 and f.evidence for f in findings)
    assert [f.confidence for f in findings] == sorted((f.confidence for f in findings), reverse=True)


def test_a_very_long_log_is_read_from_its_end() -> None:
    assert slugs("x" * 200 + "\n" + "noise and more noise\n" * 300_000 + "ERROR:  deadlock detected") == ["deadlock"]


# -- what this very server says ----------------------------------------------------------------------------------------

REAL = [
    # (statements, the slug of the last one's error, parameters)
    (["create table t (a int)", "alter table t add column a int"], "failed_migration", {"table": "t", "columns": "a"}),
    (["create table t (a int)", "create table t (a int)"], "failed_migration", {}),
    (["create table t (a int)", "create index i on t (a)", "create index i on t (a)"], "failed_migration", {}),
    (["create type mood as enum ('a')", "create type mood as enum ('a')"], "failed_migration", {}),
    (["create schema s", "create schema s"], "failed_migration", {}),
    (["create table t (a int check (a > 0))", "alter table t add constraint t_a_check check (a > 1)"], "failed_migration", {"constraint": "t_a_check", "table": "t"}),
    (["create table t (a int primary key, b int)", "alter table t add primary key (b)"], "failed_migration", {"table": "t"}),
    (["create function f() returns int language sql as 'select 1'", "create function f() returns int language sql as 'select 1'"], "failed_migration", {}),
    (["create type mood as enum ('a')", "begin; alter type mood add value 'b'; select 'b'::mood; commit"], "failed_migration", {}),
    (["create table t (a int)", "begin; create index concurrently i on t (a); commit"], "failed_migration", {}),
    (["create table t (a int)", "insert into t values (1), (1)", "alter table t add constraint u unique (a)"], "unique_violation", {"constraint": "u", "columns": "a"}),
    (["create table t (a int primary key)", "insert into t values (1), (1)"], "unique_violation", {"constraint": "t_pkey", "columns": "a"}),
    (["create table t (a int) partition by range (a)", "create index concurrently i on t (a)"], "unique_violation", {"table": "t"}),
    (["create table t (a int)", "insert into t values (null)", "alter table t alter a set not null"], "not_null_violation", {"table": "t", "columns": "a"}),
    (["create table t (a int not null)", "insert into t values (null)"], "not_null_violation", {"table": "t", "columns": "a"}),
    (["create table t (a int)", "insert into t values (0)", "alter table t add constraint c check (a > 0)"], "not_null_violation", {"table": "t", "constraint": "c"}),
    (["create table t (a int constraint c check (a > 0))", "insert into t values (0)"], "not_null_violation", {"table": "t", "constraint": "c"}),
    (["create table p (a int primary key)", "create table t (b int constraint f references p)", "insert into t values (1)"], "foreign_key_violation", {"table": "t", "constraint": "f", "columns": "b", "parent": "p"}),
    (["create table p (a int primary key)", "create table t (b int)", "insert into t values (1)", "alter table t add constraint f foreign key (b) references p (a)"], "foreign_key_violation", {"table": "t", "constraint": "f", "columns": "b", "parent": "p (a)"}),
    (["create table p (a int)", "create table t (b int)", "alter table t add constraint f foreign key (b) references p(a)"], "foreign_key_violation", {"table": "t", "constraint": "f", "columns": "b", "parent": "p(a)"}),
    (["create table p (a int primary key)", "create table t (b int references p)", "insert into p values (1); insert into t values (1)", "delete from p"], "foreign_key_violation", {"table": "t", "parent": "p", "columns": None}),
    (["create table p (a int)", "create table t (b int references p (a))"], "foreign_key_violation", {"parent": "p"}),
    (["set statement_timeout = 50", "select pg_sleep(5)"], "slow_migration", {}),
    (["create table t (a int)", "create view v as select a from t", "alter table t drop column a"], "rollback_failure", {"table": "t", "columns": "a"}),
    (["create table t (a int)", "create view v as select a from t", "drop table t"], "rollback_failure", {"table": "t"}),
    (["create table t (a int)", "create view v as select a from t", "alter table t alter a type bigint"], "rollback_failure", {}),
    (["create table t (a int, b int generated always as (a) stored)", "alter table t alter a type bigint"], "rollback_failure", {}),
    (["create type mood as enum ('a')", "create table t (a mood)", "drop type mood"], "rollback_failure", {}),
    (["create table t (a int)", "select t.phone from t"], "version_skew", {"columns": "phone"}),
    (["create table t (a int)", "insert into t (phone) values (1)"], "version_skew", {"columns": "phone", "table": "t"}),
    (["select * from carts"], "version_skew", {"table": "carts"}),
    (["set default_transaction_read_only = on", "create table t (a int)"], "environment_mismatch", {}),
    (["create extension nothing_like_it"], "environment_mismatch", {}),
    (["select null::citext"], "environment_mismatch", {}),
    (["create table alembic_version (version_num varchar(32))", "insert into alembic_version values (repeat('x', 40))"], None, {}),
]  # fmt: skip


@pytest.mark.parametrize(("statements", "slug", "filled"), REAL, ids=[case[0][-1][:50] for case in REAL])
def test_what_this_very_server_says_is_recognised(
    database: str, statements: list[str], slug: str | None, filled: dict[str, str]
) -> None:
    with psycopg.connect(plain(database), autocommit=True) as conn:
        for statement in statements[:-1]:
            conn.execute(statement.encode())
        with pytest.raises(psycopg.Error) as raised:
            conn.execute(statements[-1].encode())
    finding = best(str(raised.value)) if slug else None
    by_psycopg = (
        f"{type(raised.value).__module__}.{type(raised.value).__qualname__}: {raised.value}\n[SQL: {statements[-1]}]"
    )
    confirmed = triage.triage(by_psycopg)
    if finding is None:
        assert [f.slug for f in confirmed] == ["migration_conflict"]
        return
    assert (finding.slug, confirmed[0].slug) == (slug, slug)
    assert confirmed[0].confidence > finding.confidence
    assert {key: confirmed[0].parameters.get(key) for key in filled} == filled


# -- the database -----------------------------------------------------------------------------------------------------


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], targets.Target]:
    def name(url: str) -> targets.Target:
        monkeypatch.setenv("TRIAGE_URL", url)
        return targets.resolve("env:TRIAGE_URL")

    return name


def run(url: str, *statements: str) -> None:
    with psycopg.connect(plain(url), autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


def test_a_healthy_shop_shows_nothing(shop: Any, named: Any) -> None:
    answer = triage.examine("", named(shop.url), shop.alembic_ini)
    assert (answer.findings, answer.could_not_check) == ([], ())


def test_an_invalid_index_is_found_with_its_effect(database: str, named: Any) -> None:
    run(database, "create table t (a int)", "insert into t values (1), (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        run(database, "create unique index concurrently uq_t on t (a)")
    finding = triage.triage(target=named(database))[0]
    assert finding.slug == "failed_migration"
    assert (
        "index public.uq_t on public.t is not used, not maintained and enforces nothing, but its name is taken (INVALID)"
        in finding.evidence
    )
    run(database, "update pg_index set indisready = true where indexrelid = 'uq_t'::regclass")
    assert any("refuses duplicates already" in line for line in triage.triage(target=named(database))[0].evidence)


@pytest.mark.parametrize(
    ("ddl", "slug", "columns"),
    [
        (
            "alter table c add constraint x foreign key (p_id, p_no) references p (id, no) not valid",
            "foreign_key_violation",
            "p_id, p_no",
        ),
        ("alter table c add constraint x check (p_id is not null) not valid", "not_null_violation", "p_id"),
        ("alter table c add constraint x check (p_id > 0) not valid", "failed_migration", "p_id"),
    ],
)
def test_a_constraint_that_is_not_valid_is_found(database: str, named: Any, ddl: str, slug: str, columns: str) -> None:
    run(database, "create table p (id int, no int, primary key (id, no))", "create table c (p_id int, p_no int)", ddl)
    finding = triage.triage(target=named(database))[0]
    assert (finding.slug, finding.parameters["constraint"], finding.parameters["columns"]) == (slug, "x", columns)


def test_an_index_that_is_being_built_is_not_called_a_failure(database: str, named: Any) -> None:
    run(database, "create table t (a int)")
    with _held(database, "insert into t values (1)"), _started(database, "create index concurrently ix_t on t (a)"):
        _until(
            lambda: any(
                f.slug == "slow_migration" and "being built now" in f.evidence[0]
                for f in triage.triage(target=named(database))
            )
        )
        assert "failed_migration" not in [f.slug for f in triage.triage(target=named(database))]


def test_sessions_blocked_behind_ddl_are_found_with_their_blockers(database: str, named: Any) -> None:
    run(database, "create table t (a int)")
    with _held(database, "select * from t") as holder, _started(database, "alter table t add column b int"):
        _until(lambda: [f.slug for f in triage.triage(target=named(database))] == ["deadlock"])
        finding = triage.triage(target=named(database))[0]
        assert (finding.parameters["table"], finding.parameters["pids"]) == ("public.t", str(holder))
        assert "idle in transaction" in finding.evidence[0]


@contextmanager
def _held(url: str, statement: str) -> Iterator[int]:
    """A session that ran one statement and sits in its transaction; gives its pid."""
    with psycopg.connect(plain(url)) as conn:
        conn.execute(statement.encode())
        yield conn.info.backend_pid
        conn.rollback()


@contextmanager
def _started(url: str, statement: str) -> Iterator[None]:
    """A statement that waits in a session of its own, cancelled at the end."""
    with psycopg.connect(plain(url), autocommit=True) as conn:

        def work() -> None:
            with pytest.raises(psycopg.errors.QueryCanceled):
                conn.execute(statement.encode())

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            conn.cancel_safe(timeout=10)
            thread.join(30)
            assert not thread.is_alive()


def _until(holds: Callable[[], bool], *, deadline_s: float = 20) -> None:
    """Poll until it holds; the deadline is a failure."""
    event = threading.Event()
    for _ in range(int(deadline_s / 0.2)):
        if holds():
            return
        event.wait(0.2)
    pytest.fail(f"did not come true in {deadline_s} s")


def test_a_question_that_cannot_be_answered_is_said_and_the_others_are_still_asked(
    database: str, named: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(database, "create table c (a int)", "alter table c add constraint x check (a is not null) not valid")

    def refused(_rows: Any) -> list[sign.Sign]:
        raise PrivilegeMissing("This role may not. Nothing was changed.")

    monkeypatch.setattr(signs, "_invalid_indexes", refused)
    answer = triage.examine(target=named(database))
    assert [f.slug for f in answer.findings] == ["not_null_violation"]
    assert answer.could_not_check == ("could not check invalid indexes: This role may not",)
    assert answer.could_not_check[0] in triage.triage(target=named(database))[0].evidence


def test_a_question_that_fails_in_the_server_leaves_the_session_usable(
    database: str, named: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(database, "create table c (a int)", "alter table c add constraint x check (a is not null) not valid")
    monkeypatch.setattr(signs, "_waiting", lambda rows: [])
    ask = signs.ask
    monkeypatch.setattr(
        signs,
        "ask",
        lambda conn, name, **binds: (
            conn.exec_driver_sql("select 1/0") if name.endswith("indexes") else ask(conn, name, **binds)
        ),
    )
    answer = triage.examine(target=named(database))
    assert [f.slug for f in answer.findings] == ["not_null_violation"]
    assert "division by zero" in answer.could_not_check[0]


# -- the database and the files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["interrupted_index", "duplicate_keys", "lost_stamp", "env_order"])
def test_each_incident_of_the_lab_is_named_first_from_text_database_and_both(scenario: str, incident: Any) -> None:
    broken = incident(scenario)
    target, text = targets.resolve(broken.parameters["target"]), broken.error_file.read_text()
    by_text, by_database = triage.triage(text)[0], triage.triage("", target, broken.alembic_ini)[0]
    both = triage.triage(text, target, broken.alembic_ini)[0]
    for finding in (by_text, by_database, both):
        assert (finding.slug, finding.parameters["revision"]) == ("failed_migration", broken.parameters["revision"])
    assert both.confidence > max(by_text.confidence, by_database.confidence)
    assert shlex.split(both.command) == [
        "mend", "plan", "failed_migration", "-t", target.name, "-a", str(broken.alembic_ini), "-p", "revision", broken.parameters["revision"],
    ]  # fmt: skip


def test_duplicates_are_named_after_the_half_applied_revision_that_they_caused(incident: Any) -> None:
    broken = incident("duplicate_keys")
    found = triage.triage(
        broken.error_file.read_text(), targets.resolve(broken.parameters["target"]), broken.alembic_ini
    )
    assert [f.slug for f in found][:2] == ["failed_migration", "unique_violation"]
    assert found[1].parameters["table"] == "customers"


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("update alembic_version set version_num = 'deadbeef'", "known to no file"),
        ("insert into alembic_version select version_num || '' from alembic_version", "is there 2 times"),
        ("insert into alembic_version values ({parent})", "and its ancestor"),
    ],
)
def test_version_rows_that_do_not_fit_the_files_are_a_conflict(
    shop: Any, named: Any, statement: str, says: str
) -> None:
    from mend.histories import history

    past = history.read(shop.alembic_ini)
    parent = past.revisions[past.heads[0]].down[0]
    run(
        shop.url,
        "alter table alembic_version drop constraint alembic_version_pkc",
        statement.format(parent=f"'{parent}'"),
    )
    finding = triage.triage("", named(shop.url), shop.alembic_ini)[0]
    assert finding.slug == "migration_conflict"
    assert any(says in line for line in finding.evidence)


def test_tables_without_a_version_row_were_never_stamped(shop: Any, named: Any) -> None:
    run(shop.url, "delete from alembic_version")
    assert [f.slug for f in triage.triage("", named(shop.url), shop.alembic_ini)] == ["environment_mismatch"]


def test_two_heads_and_a_missing_parent_show_without_a_database(shop: Any) -> None:
    shop.add_revision("aaaa_one", 'revision = "aaaa"\ndown_revision = "b04e7c6f21d9"\ndef upgrade(): pass\n')
    assert triage.triage("", None, shop.alembic_ini) == []
    shop.add_revision("bbbb_two", 'revision = "bbbb"\ndown_revision = "b04e7c6f21d9"\ndef upgrade(): pass\n')
    assert "there are 2 heads: aaaa, bbbb" in triage.triage("", None, shop.alembic_ini)[0].evidence
    shop.add_revision("cccc_three", 'revision = "cccc"\ndown_revision = "gone"\ndef upgrade(): pass\n')
    finding = triage.triage("", None, shop.alembic_ini)[0]
    assert (finding.slug, finding.parameters["revision"]) == ("migration_conflict", "gone")


def test_a_pending_revision_that_drops_what_it_makes_anew_is_not_suspected(shop: Any, named: Any) -> None:
    shop.add_revision(
        "aaaa_swap",
        'from alembic import op\nrevision = "aaaa"\ndown_revision = "b04e7c6f21d9"\n'
        'def upgrade():\n    op.drop_index("ix_orders_customer_id")\n    op.create_index("ix_orders_customer_id", "orders", ["customer_id"])\n',
    )
    assert triage.triage("", named(shop.url), shop.alembic_ini) == []


def test_a_log_of_a_run_that_the_version_table_never_came_to_is_a_lost_stamp(shop: Any, named: Any) -> None:
    shop.add_revision(
        "ae1027a6acf_x", 'revision = "ae1027a6acf"\ndown_revision = "b04e7c6f21d9"\ndef upgrade(): pass\n'
    )
    finding = triage.triage(RUNNING, named(shop.url), shop.alembic_ini)[0]
    assert (finding.slug, finding.parameters["revision"]) == ("failed_migration", "ae1027a6acf")
    run(shop.url, "update alembic_version set version_num = 'ae1027a6acf'")
    assert triage.triage(RUNNING, named(shop.url), shop.alembic_ini) == []


def test_an_alembic_ini_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ProjectBroken, match=r"There is no .*nowhere\.ini"):
        triage.triage("x", None, tmp_path / "nowhere.ini")


def test_a_server_that_is_down_stops_triage_unless_the_text_says_something(named: Any) -> None:
    down = named("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(TargetUnreachable):
        triage.triage("nothing to see", down)
    answer = triage.examine("ERROR:  deadlock detected", down)
    assert [f.slug for f in answer.findings] == ["deadlock"]
    assert answer.could_not_check[0].startswith("could not look at env:TRIAGE_URL")

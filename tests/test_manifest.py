"""What a copy in schema mend must hold is noted with it, and what it holds later is compared with that."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fix_runs import Look
from mend.change import manifest
from mend.change.kept import Copy, Keeper
from mend.change.manifest import Kept
from mend.database import target
from mend.database.target import Target
from mend.plan import Statement
from mend.record import ledger

NAME = "kept_0123456789abcdef"


@pytest.fixture
def look(database: str) -> Look:
    look = Look(database)
    look.execute(
        *ledger.schema_statements("mend"),
        f"create table mend.{NAME} as select i as id, now() + i * interval '1 day' as mend_k, 'v%' || i as v from generate_series(1, 5) as i",
    )
    return look


@pytest.fixture
def place(look: Look, monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setenv("MANIFEST_URL", look.url)
    return target.resolve("env:MANIFEST_URL")


def send(look: Look, *statements: Statement, zone: str = "UTC") -> list[int]:
    with look.connect(autocommit=False, application_name="mend:run-1:0") as conn:
        conn.execute(f"set local timezone = '{zone}'".encode())
        counts = [conn.execute(statement.sql.encode()).rowcount for statement in statements]
        conn.commit()
    return counts


def note(days: int = 30) -> Statement:
    return manifest.note("mend", NAME, source="public.t.v", table="public.t", revision="ab12", days=days)


def kept(place: Target) -> tuple[Kept, ...]:
    with place.reading() as conn:
        return manifest.read(conn, "mend")


def difference(place: Target) -> str:
    with place.reading() as conn:
        (one,) = manifest.read(conn, "mend")
        return manifest.difference(conn, "mend", one)


def test_a_copy_is_noted_with_its_run_and_expiry_and_is_as_it_was_noted_in_any_time_zone(
    look: Look, place: Target
) -> None:
    assert send(look, note(), zone="Asia/Tokyo") == [1]
    (one,) = kept(place)
    assert (one.source, one.rows, one.revision, one.run_id, one.kind) == ("public.t.v", 5, "ab12", "run-1", "rescue")
    assert (one.noted, one.there, one.expired, one.restored_at) == (True, True, False, "")
    assert difference(place) == ""
    assert send(look, *manifest.compared("mend", NAME), zone="America/Lima")[:2] == [1, 1]


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        ("update mend.{} set v = 'other' where id = 1", "the checksum differs"),
        ("update mend.{} set mend_k = mend_k + interval '1 second' where id = 1", "the checksum differs"),
        ("insert into mend.{} select * from mend.{} limit 1", "it holds 6 rows where 5 were written"),
        ("alter table mend.{} drop column v", "the checksum differs"),
        ("alter table mend.{} rename column v to w", "the checksum differs"),
        ("drop table mend.{}", "it is gone"),
    ],
)
def test_what_was_altered_is_told_and_stops_the_statements_that_use_it(
    look: Look, place: Target, alter: str, says: str
) -> None:
    send(look, note())
    look.execute(alter.replace("{}", NAME))
    assert says in difference(place)
    if says != "it is gone":
        assert send(look, *manifest.compared("mend", NAME))[:2] == [1, 0]


def test_columns_of_one_type_that_change_places_are_told(look: Look, place: Target) -> None:
    look.execute(f"alter table mend.{NAME} add column other text default 'o'")
    send(look, note())
    for old, new in (("v", "was_v"), ("other", "v"), ("was_v", "other")):
        look.execute(f"alter table mend.{NAME} rename column {old} to {new}")
    assert "the checksum differs" in difference(place)


def test_default_privileges_open_no_copy(look: Look, place: Target) -> None:
    copy = Copy(Keeper("mend", "%"), 'public."T%%s"', "")
    try:
        look.execute(
            'create role "cur""ious %"', 'alter default privileges grant select on tables to "cur""ious %", public'
        )
        send(look, *copy.made("select 1 as id"), copy.noted())
        assert [one.grantees for one in kept(place) if one.noted] == [""]
    finally:
        look.execute(
            'drop owned by "cur""ious %"',
            'drop role "cur""ious %"',
            "alter default privileges revoke select on tables from public",
        )


def test_what_nobody_noted_is_listed_and_never_expires(look: Look, place: Target) -> None:
    look.execute(f"comment on table mend.{NAME} is 'mend: values of public.t.v; expires 30 days after the run'")
    (one,) = kept(place)
    assert (one.noted, one.expired, one.source) == (False, False, "values of public.t.v; expires 30 days after the run")


def test_what_expired_says_so_and_what_was_given_back_is_no_longer_compared(look: Look, place: Target) -> None:
    send(look, note(days=-1), manifest.given_back("mend", NAME))
    look.execute(f"delete from mend.{NAME}")
    (one,) = kept(place)
    assert one.expired
    assert one.restored_at
    assert difference(place) == ""


def test_a_schema_that_an_earlier_version_made_gets_its_manifest(look: Look, place: Target) -> None:
    look.execute("drop table mend.manifest")
    assert len(kept(place)) == 1
    with place.reading() as conn:
        missing = ledger.missing_statements(conn, "mend")
    look.execute(*missing)
    with place.reading() as conn:
        assert ledger.missing_statements(conn, "mend") == ()


def test_others_may_not_read_it(look: Look, new_database: Callable[..., str]) -> None:
    assert look.query("select count(*) from pg_class, aclexplode(relacl) as a where relname = 'manifest' and a.grantee = 0") == [(0,)]  # fmt: skip

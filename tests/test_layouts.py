"""Bytes that are no value of a type never reach the server as one: a type that was changed by hand costs a message, and no session."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from fix_bench import Bench
from fix_runs import Look
from mend.change.kept import Copy, Keeper
from mend.database import target
from mend.errors import StepFailed
from mend.loss import dropped, layouts, recover
from mend.plan import Step
from mend.postgres.server import Server, find_binaries

N = 40
_RUNS = itertools.count(1)
# By column: its type, and a value for the n-th row.
VALUES = {
    "words": ("text", "repeat('Grüße, ', n % 5) || n"), "name_like": ("varchar(9)", "'é'"), "raw": ("bytea", "decode(md5(n::text), 'hex')"),
    "plain": ("json", "json_build_object('n', n)"),
    "doc": ("jsonb", "jsonb_build_object('n', n / 7.0, 'deep', jsonb_build_array(n, null, true, jsonb_build_object('a', repeat('x', n))), 'list', (select jsonb_agg(i) from generate_series(1, n) as i))"),
    "scalar": ("jsonb", "to_jsonb(n)"), "exact": ("numeric", "(array['NaN', 1e-90, 0, -n, 12345678901234567890])[1 + n % 5]::numeric"),
    "whole": ("integer[]", "array[[n, null], [2, -n]]"), "big": ("bigint[]", "array[n, n * 10000000000]"), "texts": ("text[]", "array['a' || n, null, '']"),
    "prices": ("numeric[]", "array[n / 3.0, 0]"), "reach": ("int4range", "int4range(n, n + 10)"), "far": ("numrange", "(array['empty', numrange(n / 7.0, null), numrange(1, 2e40)])[1 + n % 3]::numrange"),
    "stay": ("tstzrange", "tstzrange(now(), now() + n * interval '1 h')"), "bits": ("varbit", "n::bit(20)"), "address": ("inet", "(array['10.0.0.1/8', '2001:db8::1'])[1 + n % 2]::inet"),
    "pair": ("pair", "row(n, 'x' || n)::pair"), "lexemes": ("tsvector", "to_tsvector('simple', 'the fat cat ' || n)"), "shape": ("path", "'((0,0),(1,1))'"),
}  # fmt: skip
TAKEN_FOR = (
    "text",
    "json",
    "jsonb",
    "numeric",
    "integer[]",
    "text[]",
    "numeric[]",
    "int4range",
    "numrange",
    "varbit",
    "inet",
)


@pytest.fixture(scope="module", params=[18])
def changed_by_hand(request: pytest.FixtureRequest, session_directory: Path) -> Iterator[Server]:
    """A server of its own, with a table ``t`` of every kind of value, whose columns are all dropped."""
    server = Server(session_directory / "pg-layouts", find_binaries(request.param), detached=False)
    server.start()
    look = Look(server.url())
    look.execute(
        "create type pair as (a integer, b text)", f"create table t (id integer primary key, {', '.join(f'{name} {kind}' for name, (kind, _) in VALUES.items())})",
        f"insert into t select n, {', '.join(value for _, value in VALUES.values())} from generate_series(1, {N}) as n",
        f"alter table t {', '.join(f'drop column {name}' for name in VALUES)}",
    )  # fmt: skip
    yield server
    server.destroy()


@pytest.fixture
def hands(changed_by_hand: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    """That server's database."""
    monkeypatch.setenv("BENCH_URL", changed_by_hand.url())
    return Bench(changed_by_hand.url(), tmp_path / "bench", runs=next(_RUNS))


# A message of the server's for a value is harmless.
EACH = """
do $$ declare one record; begin
  for one in select id from damaged loop
    begin perform octet_length(cast(row(d.c) as text)) from damaged as d where d.id = one.id;
    exception when others then null; end;
  end loop;
end $$
"""


def reading(table: str, number: int, kind: str) -> Step:
    """A column of that number, taken for that type, whatever else stands against it."""
    with target.resolve("env:BENCH_URL").reading() as conn:
        found = dropped.type_of(conn, kind, -1)
        (place,) = (one for one in dropped.columns(conn, f"public.{table}") if one.attnum == number)
    assert found is not None
    assert found.layout is not None
    copy = Copy(Keeper("mend", f"{table} {number} {kind}"), f"public.{table}.c", f"public.{table}")
    wanted = recover.Wanted(f"public.{table}", "c", kind, found.layout, {"id": "integer"}, (place,), copy)
    return recover.step(wanted, rows_expected=None)


def laid(look: Look) -> dict[str, list[bytes]]:
    """The bytes of every column as they lie on disk."""
    with look.connect(autocommit=False) as conn:
        conn.execute(
            "update pg_attribute set attisdropped = false, atttypid = 'bytea'::regtype where attrelid = 't'::regclass and attisdropped"
        )
        names = {name: f'"........pg.dropped.{n}........"' for n, name in enumerate(VALUES, 2)}
        found = {
            name: [row[0] for row in conn.execute(f"select {place} from t where {place} is not null".encode())]
            for name, place in names.items()
        }
        conn.rollback()
    return found


def layout(kind: str) -> layouts.Layout:
    with target.resolve("env:BENCH_URL").reading() as conn:
        found = dropped.type_of(conn, kind, -1)
    assert found is not None
    assert found.layout is not None
    return found.layout


def test_bytes_are_values_of_their_own_type_and_of_no_other(hands: Bench) -> None:
    found = laid(hands.look)
    judged = [kind for kind in TAKEN_FOR if layout(kind).judged]
    assert len(judged) == 9
    for kind in judged:
        taken = layout(kind)
        for name, values in found.items():
            passed = sum(not layouts.fault(taken, one) for one in values)
            if VALUES[name][0] == kind:
                assert passed == len(values), (name, kind, passed)
            else:  # a single value may pass by chance
                assert passed < len(values), (name, kind, passed)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("doc", "text"), ("words", "jsonb"), ("plain", "jsonb"), ("raw", "jsonb"), ("pair", "jsonb"), ("words", "integer[]"), ("whole", "text"),
        ("words", "numeric"), ("raw", "varbit"), ("raw", "numrange"), ("words", "int4range"),
    ],
)  # fmt: skip
def test_a_type_that_was_changed_by_hand_costs_nobody_a_session(hands: Bench, name: str, kind: str) -> None:
    step = reading("t", 2 + list(VALUES).index(name), kind)
    with hands.look.connect() as bystander:
        with pytest.raises(StepFailed, match="not of the type that it is taken for"):
            hands.apply(step)
        assert bystander.execute("select 1").fetchone() == (1,)
    assert hands.look.query("select count(*) from pg_tables where schemaname = 'mend' and tablename like 'kept%'") == [
        (0,)
    ]
    assert hands.look.query(
        "select count(*) from pg_attribute where attrelid = 't'::regclass and attnum > 0 and not attisdropped"
    ) == [(1,)]


@pytest.mark.parametrize("kind", ["jsonb", "numeric", "integer[]", "text[]", "numeric[]", "numrange", "varbit", "inet"])
def test_damaged_bytes_that_pass_are_harmless_to_the_server(hands: Bench, kind: str) -> None:
    """What the judge lets through of many damaged values is read by the server as that type, and it lives."""
    dice, taken = random.Random(kind), layout(kind)
    sound = [one for name, values in laid(hands.look).items() if VALUES[name][0] == kind for one in values]
    passed = []
    for _ in range(4_000):
        data = bytearray(dice.choice(sound))
        for _ in range(dice.randint(1, 3)):
            data[dice.randrange(min(len(data), 64))] = dice.choice([dice.randrange(256), 0, 255, 128])
        if dice.random() < 0.2:
            del data[dice.randrange(len(data)) :]
        if not layouts.fault(taken, bytes(data)):
            passed.append(bytes(data))
    look = hands.look
    look.execute(
        "drop table if exists damaged",
        "create table damaged (id integer generated always as identity primary key, c bytea)",
    )
    with look.connect() as conn, conn.cursor().copy("copy damaged (c) from stdin") as goal:
        for one in passed:
            goal.write_row([one])
    with look.connect(autocommit=False) as conn, look.connect() as bystander:
        conn.execute(
            f"update pg_attribute set atttypid = '{kind}'::regtype where attrelid = 'damaged'::regclass and attname = 'c'".encode()
        )
        conn.execute(EACH)
        assert bystander.execute("select 1").fetchone() == (1,)
        conn.rollback()
    assert passed

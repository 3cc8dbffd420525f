"""``mend pause`` holds what is applied now, and nothing else; the flag is no part of the record."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from fix_bench import Bench
from mend import __main__ as command
from mend.batches import pausing
from mend.execution import execute
from mend.lab.shop import plain
from mend.plan import Plan
from mend.record import archive


def until(seen: Callable[[], Any]) -> Any:
    """Poll until something is there."""
    deadline = time.monotonic() + 60
    while not (found := seen()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
    return found


@pytest.fixture
def applying(record: archive.Record) -> archive.Record:
    """A run that has begun to apply its plan, of a run that made it."""
    run = archive.create("small", action="apply", parameters={"target": "lab"}, of=record.run_id)
    run.journal.append("apply_started", {"digest": "d", "steps": 1})
    return run


def _pause(*arguments: str) -> int:
    return command.main(["pause", *arguments])


def test_a_pause_is_set_and_lifted(applying: archive.Record, capsys: pytest.CaptureFixture[str]) -> None:
    assert _pause(applying.run_id) == 0
    said = capsys.readouterr().out
    assert f"run {applying.run_id} stops before its next batch" in said
    assert f"pause {applying.run_id} --off" in said
    flag = pausing.flag(applying.path)
    assert flag is not None
    assert flag["run"] == applying.run_id
    assert pausing.words(flag).startswith(f"paused by {flag['by']} since ")
    assert pausing.remedy(flag) == f"; `mend pause {applying.run_id} --off` goes on"
    assert _pause(applying.run_id, "--off") == 0
    assert pausing.flag(applying.path) is None
    assert _pause(applying.run_id, "--off") == 0, "twice is once"


def test_the_run_that_made_the_plan_stands_for_the_one_that_applies_it(record: archive.Record, applying: archive.Record, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    assert _pause(record.run_id, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["run_id"], said["paused"]) == (applying.run_id, True)
    assert pausing.flag(record.path) is None


@pytest.mark.parametrize("end", ["", "run_closed", "failed", "left"])
def test_what_is_not_applied_now_cannot_be_paused(record: archive.Record, end: str, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    if end:
        record.journal.append("apply_started", {})
        record.journal.append(end, {})
    assert _pause(record.run_id) == 3
    assert "is not applying anything now. Nothing was changed." in capsys.readouterr().err
    assert pausing.flag(record.path) is None


def test_a_run_that_goes_on_in_jupyterlab_after_it_was_closed_can_be_paused(record: archive.Record) -> None:
    for kind in ("run_closed", "apply_started"):
        record.journal.append(kind, {})
    assert _pause(record.run_id) == 0


def test_a_flag_that_was_left_changes_nothing_about_the_record(ended: archive.Record) -> None:
    pausing.set_flag(ended.path, by="me", since="2026-01-01T00:00:00.000Z")
    assert archive.verify(ended).state == "whole"
    archive.seal(ended)
    pausing.lift(ended.path)
    assert archive.verify(ended).state == "whole"


@pytest.mark.parametrize("content", ["", "[]", "\xff", "{"])
def test_a_flag_that_cannot_be_read_pauses_too(ended: archive.Record, content: str) -> None:
    (ended.path / pausing.PAUSED).write_bytes(content.encode("latin-1"))
    flag = pausing.flag(ended.path)
    assert flag is not None
    assert pausing.words(flag) + pausing.remedy(flag) == "paused by somebody; `mend pause RUN --off` goes on"


# -- a repair that runs -----------------------------------------------------------------------------------------------


def test_a_repair_that_is_paused_writes_nothing_until_it_is_lifted_and_says_so(bench: Bench) -> None:
    bench.look.execute(
        "create table t (id int primary key, v int)", "insert into t select n from generate_series(1, 5000) as n"
    )
    step = bench.step("public.t", "update", {"v": "1"}, where="t.v is null", workers=2)
    writer = bench.writer()
    pausing.set_flag(writer.journal.path.parent, by="me on host", since="2026-01-01T12:00:00.000Z")
    plan = Plan("bench", {}, {}, "repair", steps=(step,))
    run = threading.Thread(target=execute.apply, args=(writer, plan))
    run.start()
    until(lambda: [s for s in writer.journal.of("batch_sample") if s.payload["why"].startswith("paused by me on host")])
    assert bench.look.query("select count(*) from t where v = 1") == [(0,)]
    assert any("paused by me on host since 12:00:00 UTC" in said for said in bench.told)
    pausing.lift(writer.journal.path.parent)
    run.join(60)
    assert bench.look.query("select count(*) from t where v = 1") == [(5000,)]
    said = [event.payload["why"] for event in writer.journal.of("throttled")]
    assert (said[0][:9], said[-1]) == ("paused by", "at full pace again")


def test_a_repair_whose_rows_others_wait_for_says_whom_it_slows_for(bench: Bench) -> None:
    """The trigger makes each batch last; the application waits for one of its rows."""
    bench.look.execute(
        "create table t (id int primary key, v int)",
        "insert into t select n from generate_series(1, 500) as n",
        "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.005); return new; end'",
        "create trigger slow before update of v on t for each row execute function slow()",
    )
    step = bench.step("public.t", "update", {"v": "1"}, where="t.v is null")
    writer = bench.writer()
    run = threading.Thread(target=execute.apply, args=(writer, Plan("bench", {}, {}, "repair", steps=(step,))))
    ended = threading.Event()

    def application() -> None:
        batch = "select from pg_stat_activity where application_name like 'mend:%:w1' and query like '%mend_hit%'"
        until(lambda: bench.look.query(batch))
        with psycopg.connect(plain(bench.url), autocommit=True, application_name="shop") as conn:
            while not ended.is_set():
                for n in range(1, 500, 25):
                    conn.execute("update t set id = id where id = %s", [n])

    app = threading.Thread(target=application)
    run.start()
    app.start()
    try:
        run.join(120)
        assert not run.is_alive()
    finally:
        ended.set()
        app.join(60)
    said = [event.payload["why"] for event in writer.journal.of("throttled")]
    assert any("(shop) waits for our batch for" in why for why in said)
    assert bench.look.query("select count(*) from t where v = 1") == [(500,)]

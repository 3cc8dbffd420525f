"""``mend pause`` holds what is applied now, and nothing else; the flag is no part of the record."""

from __future__ import annotations

import json

import pytest
from mend import __main__ as command
from mend import archive, pausing


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
    assert pausing.words(flag) == "paused by somebody: `mend pause RUN --off` goes on"

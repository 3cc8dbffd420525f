"""One line says how far a backfill is; a terminal shows it live, a log and a record get it now and then."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
from mend.batches.progress import Heartbeat, Live, Sample, from_payload, line
from mend.command import screen
from mend.notebook import opening, widgets
from mend.record import markup, narrate

LAG = "replica r is 14 s behind, the limit is 10 s"


@pytest.mark.parametrize(
    ("sample", "told", "share"),
    [
        (
            Sample(120_000, 400_000, 31_000.4, 92.0, 2_900, 1, LAG, 9.03),
            f"step 2: 120,000 of about 400,000 rows, 31,000 rows/s, 9 s left; slowed: {LAG}",
            0.3,
        ),
        (Sample(7, None, 0.0, 0.0, 0, 1), "step 2: 7 rows, 0 rows/s", None),
        (Sample(500, 400, 10.0, 0.0, 0, 1), "step 2: 500 of about 500 rows, 10 rows/s", 1.0),
        (Sample(0, 0, 0.0, 0.0, 0, 1), "step 2: 0 of about 0 rows, 0 rows/s", None),
        (Sample(1, 9, 1.0, 0.0, 0, 1, "paused by me", 600.0, 0.5), "step 2: 1 of about 9 rows, 1 rows/s, 10 min left; paused by me", 0.5),
        (Sample(1, 9, 1.0, 0.0, 0, 1, "", 7200.0, 1.2), "step 2: 1 of about 9 rows, 1 rows/s, 2.0 h left", 1.0),
    ],
)  # fmt: skip
def test_progress_is_one_line(sample: Sample, told: str, share: float | None) -> None:
    said = line(1, sample)
    assert (said, said.share, said.slowed) == (told, share, bool(sample.why))


def test_the_line_is_the_same_from_the_journal() -> None:
    sample = Sample(120_000, 400_000, 31_000.4, 92.0, 2_900, 1, LAG, 9.03)
    event = {"kind": "batch_sample", "payload": sample.payload(1) | {"added later": 1}}
    assert narrate.sentence(event) == line(1, sample)
    assert from_payload({}) == Sample(0, None, 0.0, 0.0, 0, 1)


def test_a_throttle_is_a_sentence() -> None:
    assert narrate.sentence({"kind": "throttled", "payload": {"step": 0, "why": f"slowed: {LAG}"}}) == f"Step 1: slowed: {LAG}"  # fmt: skip


def test_a_log_hears_of_a_long_step_every_5_s_and_every_minute_later() -> None:
    said: list[str] = []
    now = [0.0]
    beat = Heartbeat(said.append, clock=lambda: now[0])
    for second in range(3600):
        now[0] = float(second)
        beat(Live(str(second)))
        if second == 7:
            beat("a line like any other")
    assert said[:4] == ["5", "a line like any other", "10", "15"]
    assert 60 < len(said) < 160
    assert int(said[-1]) - int(said[-2]) == 60


def test_who_reads_the_journal_gets_no_live_line_from_the_kernel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setenv("MEND_RUN", "/somewhere")
    say = opening.progress()
    say(Live("live"))
    say("step 1: x")
    assert capsys.readouterr().err == "step 1: x\n"


def test_a_kernel_of_its_own_says_it_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    for run, front in (("", "0"), ("/somewhere", "1")):
        monkeypatch.setenv("MEND_RUN", run)
        monkeypatch.setenv("MEND_INTERACTIVE", front)
        assert isinstance(opening.progress(), Heartbeat)


# -- the terminal -----------------------------------------------------------------------------------------------------

TALK = """
from mend.command import screen
from mend.batches.progress import Live
screen.say("before")
screen.say(Live("step 1: 1 of about 4 rows", 0.25))
screen.say(Live("step 1: 2 of about 4 rows; slowed: it \\x1b[31m is", 0.5))
screen.say("between")
screen.say(Live("step 1: nobody knows " + "x" * 300, None))
screen.out("the answer")
"""


def _in_a_terminal(**environ: str) -> str:
    """What TALK writes to a terminal of 80 columns."""
    main, side = pty.openpty()
    command = [sys.executable, "-c", TALK]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80", **environ}
    with subprocess.Popen(command, stdout=side, stderr=side, stdin=side, env=env) as child:
        os.close(side)
        written = b""
        try:
            while piece := os.read(main, 4096):
                written += piece
        except OSError:  # Linux: the other end was closed
            pass
        assert child.wait(60) == 0
    os.close(main)
    return written.decode()


def test_a_terminal_shows_the_last_sample_until_the_next_line() -> None:
    written = _in_a_terminal()
    assert "\x1b[31m" not in written
    parts = written.split("\r\x1b[2K")
    assert "before" in parts[0]
    assert ("━" in parts[1], " 25% " in parts[1], "1 of about 4" in parts[1], "\n" in parts[1]) == (
        True,
        True,
        True,
        False,
    )
    assert " 50% " in parts[2]
    assert "between" in parts[3]
    assert "nobody knows" in parts[4]
    assert parts[4].count("x") < 80
    assert parts[5].strip() == "the answer"


def test_a_terminal_without_our_characters_gets_others() -> None:
    written = _in_a_terminal(PYTHONIOENCODING="ascii:replace")
    assert "==\x1b[0m\x1b[2m--------" in written


def test_without_colour_a_terminal_is_a_log() -> None:
    assert _in_a_terminal(NO_COLOR="1").split() == ["before", "between", "the", "answer"]


def test_a_log_gets_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        screen, "_in_a_log", Heartbeat(screen._in_a_log._say, clock=iter([0.0, 1.0, 6.0, 7.0]).__next__)
    )
    for number in range(2):
        screen.say(Live(f"step 1: {number} rows"))
    screen.say("Verified")
    assert capsys.readouterr().err == "step 1: 1 rows\nVerified\n"


# -- JupyterLab -------------------------------------------------------------------------------------------------------


def test_the_approval_box_has_a_live_bar() -> None:
    seen: list[tuple[object, ...]] = []

    def apply(say: widgets.Progress) -> markup.Shown | None:
        say("step 1: Fill <it>")
        for said in (
            line(0, Sample(100, 400, 50.0, 9.0, 10, 1, "", 6.0)),
            line(0, Sample(300, 400, 5.0, 9.0, 1, 1, "<lag>")),
        ):
            say(said)
            seen.append(
                (box.bar._bar.value, box.bar._bar.bar_style, box.bar._line.value, box.bar.widget.layout.display)
            )
        assert "rows/s" not in box.area.value, "a sample leaves no line behind"
        return None

    box = widgets.Approval(database="shop", digest="abc123", apply=apply)
    assert box.bar.widget.layout.display == "none"
    box.name.value = "shop"
    box.button.click()
    assert seen == [
        (0.25, "info", "<span>step 1: 100 of about 400 rows, 50 rows/s, 6 s left</span>", ""),
        (0.75, "warning", "<span>step 1: 300 of about 400 rows, 5 rows/s; slowed: &lt;lag&gt;</span>", ""),
    ]
    assert box.bar.widget.layout.display == "none"
    assert "step 1: Fill &lt;it&gt;" in box.area.value

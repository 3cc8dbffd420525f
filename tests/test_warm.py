"""What `warm` starts is a process like any other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import warm

PROGRAM = """
import os, sys
print(os.getcwd(), os.environ["OWN"], sys.argv[1:], os.getsid(0) == os.getpid(), input())
print("trouble", file=sys.stderr)
sys.exit(7)
"""


def said(how: object, script: Path) -> tuple[str, str, int]:
    process = how.Popen(  # type: ignore[attr-defined]
        [sys.executable, str(script), "a b"], stdin=-1, stdout=-1, stderr=-1, text=True, cwd=script.parent,
        env={**os.environ, "OWN": "é"}, start_new_session=True,
    )  # fmt: skip
    out, err = process.communicate("hello\n", timeout=60)
    return out, err, process.returncode


def test_it_runs_as_a_start_from_nothing_would(tmp_path: Path) -> None:
    script = tmp_path / "own.py"
    script.write_text(PROGRAM)
    assert said(warm, script) == said(subprocess, script)
    assert said(warm, script)[2] == 7


def test_an_error_is_shown_and_a_killed_one_is_told(tmp_path: Path) -> None:
    script = tmp_path / "own.py"
    script.write_text("raise ValueError(1)")
    done = warm.run([sys.executable, str(script)], stderr=warm.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: 1\n")
    script.write_text("input()")
    with warm.Popen([sys.executable, str(script)], stdin=warm.PIPE, start_new_session=True) as process:
        assert process.poll() is None
        with pytest.raises(warm.TimeoutExpired):
            process.wait(0)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL


def test_another_interpreter_or_other_words_are_started_as_ever() -> None:
    assert (
        warm.run(
            [sys.executable, "-c", "import sys; sys.exit('alembic' in sys.modules)"], timeout=60, check=False
        ).returncode
        == 0
    )
    assert warm.run(["/bin/sh", "-c", "exit 3"], timeout=60, check=False).returncode == 3

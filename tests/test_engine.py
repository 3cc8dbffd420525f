"""The engine: a run that was cut off says so, in the notebook, in the journal and by its error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fix_record import CLOSES, SLUG, Runbook
from jupyter_client.manager import AsyncKernelManager
from mend import engine
from mend.errors import Interrupted, MendError, OutcomeUnknown, PlanIsStale
from mend.notebook import cells
from mend.notebook.stop import Stop
from mend.record import archive, narrate

RECORD = "import os\nfrom pathlib import Path\nfrom mend.record.archive import Record\nrecord = Record(Path(os.environ['MEND_RUN']))"
DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
Ran = tuple[archive.Record, MendError | None]


def _run(**options: Any) -> Ran:
    """Run the runbook `small` into a new record."""
    record = archive.create(SLUG, action="plan", parameters={"target": "lab"})
    try:
        engine.execute(record, SLUG, options.pop("given", {}), **options)
    except MendError as error:
        return record, error
    return record, None


def _cells(record: archive.Record) -> dict[str, Any]:
    """Each code cell of the executed notebook, by its id."""
    return {c["id"]: c for c in _notebook(record)["cells"] if c["cell_type"] == "code"}


def _notebook(record: archive.Record) -> dict[str, Any]:
    return dict(json.loads((record.path / "notebook.ipynb").read_text()))


def _states(record: archive.Record) -> list[str]:
    return [c["metadata"]["papermill"]["status"] for name, c in _cells(record).items() if len(name) == 1]


def _said(record: archive.Record, name: str) -> str:
    return "".join("".join(output.get("text", "")) for output in _cells(record)[name]["outputs"])


def test_a_run_ends_with_every_cell_completed(runbook: Runbook) -> None:
    runbook("print('hello', target, revision)")
    record, error = _run(given={"target": "env:X", "revision": "001234567890"})
    assert error is None
    assert _states(record) == ["completed", "completed"]
    assert _said(record, "a") == "hello env:X 001234567890\n"
    assert record.outcome == "completed"
    assert sorted(p.name for p in record.path.iterdir()) == ["journal.jsonl", "notebook.ipynb"]


@pytest.mark.parametrize("source", ["1", "1 / 0"])
def test_an_idle_kernel_is_not_interrupted(runbook: Runbook, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would say so on our stderr, if it has not quite come to rest."""
    interrupted: list[cells.Kernel] = []

    async def interrupt(kernel: cells.Kernel) -> None:
        interrupted.append(kernel)

    monkeypatch.setattr(AsyncKernelManager, "_async_interrupt_kernel", interrupt)
    runbook(source)
    _run()
    assert not interrupted
    monkeypatch.setattr(cells.Kernel, "cut_off", True)
    _run()
    assert interrupted, "one that may still be at work is"


def test_the_kernel_is_told_its_run_and_nothing_of_jupyterlab(
    runbook: Runbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEND_INTERACTIVE", "1")
    runbook(
        "import os; print(*(os.environ.get(k) for k in ('MEND_RUN', 'MEND_ACTION', 'MEND_OF', 'MEND_INTERACTIVE', 'EXTRA')))"
    )
    record, _ = _run(environ={"EXTRA": "more"})
    assert _said(record, "a").split(" ") == [str(record.path), "plan", "", "None", "more\n"]


def test_a_cell_that_raises_leaves_the_rest_pending(runbook: Runbook) -> None:
    runbook("1", "1 / 0", "2")
    record, error = _run()
    assert type(error) is MendError
    assert "ZeroDivisionError: division by zero" in error.message
    assert _states(record) == ["completed", "failed", "pending", "pending"]
    assert record.outcome == "failed"
    assert len(_notebook(record)["cells"]) == 7, "no cell is inserted"


def test_an_error_that_the_run_journaled_is_raised_as_it_was(runbook: Runbook) -> None:
    runbook(
        f"{RECORD}\nrecord.journal.append('refused', {{'error': 'PlanIsStale', 'message': 'It moved.', 'exit_code': 3, 'differences': ['a -> b']}})\n1 / 0"
    )
    record, error = _run()
    assert type(error) is PlanIsStale
    assert error.message == "It moved."
    assert error.differences == ["a -> b"]
    assert record.outcome == "refused"


def test_leaving_early_is_no_success(runbook: Runbook) -> None:
    runbook("import sys; sys.exit(0)")
    record, error = _run()
    assert type(error) is MendError
    assert _states(record) == ["failed", "pending"]
    runbook("1", closes=False)
    record, error = _run()
    assert error is not None
    assert "without closing" in error.message
    assert record.outcome == "failed"


def test_a_kernel_that_dies_is_an_interruption(runbook: Runbook) -> None:
    runbook("print('before', flush=True)", DIES, "2")
    record, error = _run()
    assert type(error) is Interrupted
    assert "Nothing was changed" in error.message
    assert _states(record) == ["completed", "failed", "pending", "pending"]
    assert _cells(record)["b"]["metadata"]["papermill"]["stopped_by"] == "DeadKernelError"
    assert _notebook(record)["metadata"]["papermill"]["exception"] is True
    assert record.outcome == "interrupted"


def test_a_kernel_that_dies_within_a_step_leaves_the_outcome_unknown(runbook: Runbook) -> None:
    runbook(
        f"{RECORD}\nrecord.journal.append('apply_started', {{}})\nrecord.journal.append('step_started', {{'step': 1}})\n{DIES}"
    )
    record, error = _run()
    assert type(error) is OutcomeUnknown
    assert "Step 2" in error.message
    assert f"mend resume {record.run_id}" in error.message
    assert record.outcome == "unknown"


def test_a_kernel_that_dies_between_steps_does_not_say_that_nothing_was_changed(runbook: Runbook) -> None:
    runbook(
        f"{RECORD}\nrecord.journal.append('apply_started', {{}})\nrecord.journal.append('step_done', {{'step': 0}})\n{DIES}"
    )
    _, error = _run()
    assert type(error) is Interrupted
    assert "Nothing was changed" not in error.message
    assert "mend resume" in error.message


SLEEPS = f"""{RECORD}
import time
(record.path / 'asleep').touch()
try:
    time.sleep(60)
except KeyboardInterrupt:
    record.journal.append('cancelled', {{}})
    raise"""
STUBBORN = f"""{RECORD}
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
(record.path / 'asleep').touch()
time.sleep(60)"""


@contextmanager
def _started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run `small` in a process of its own that hears every signal, whatever the tests' own runner ignores, and wait until it sleeps."""
    code = f"""
import signal
from pathlib import Path
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from mend import engine
from mend.database import parameters
from mend.notebook import stop
from mend.record import archive
parameters.folder = lambda: Path({str(tmp_path / "runbooks")!r})
stop.GRACE_S = 1.0
record = archive.create({SLUG!r}, action="plan", parameters={{}})
engine.execute(record, {SLUG!r}, {{}})
"""
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, _until(lambda: next(iter(tmp_path.glob("outputs/*/asleep")), None)).parent
        finally:
            process.kill()


def _until(found: Callable[[], Any], *, seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_interrupts_the_cell_and_saves(runbook: Runbook, tmp_path: Path, number: signal.Signals) -> None:
    runbook(SLEEPS, "2")
    with _started(tmp_path) as (process, path):
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    record = archive.Record(path)
    assert f"Interrupted: The run was interrupted ({number.name})" in errors
    assert record.journal.of("cancelled"), "the cell could clean up"
    assert _states(record) == ["failed", "pending", "pending"]
    assert record.outcome == "interrupted"


def test_nohup_stays_in_force() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("signals", [1, 2])
def test_a_cell_that_does_not_listen_is_killed(runbook: Runbook, tmp_path: Path, signals: int) -> None:
    runbook(STUBBORN, "2")
    with _started(tmp_path) as (process, path):
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        _, errors = process.communicate(timeout=30)
    assert "Interrupted: The run was interrupted" in errors
    assert _states(archive.Record(path)) == ["failed", "pending", "pending"]


def test_an_interruption_before_the_kernel_is_up_is_recorded_too(
    runbook: Runbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    runbook("1")
    monkeypatch.setattr(cells, "kernel", interrupted)
    record, error = _run()
    assert type(error) is Interrupted
    assert record.outcome == "interrupted"


def test_no_kernel_outlives_a_killed_parent(runbook: Runbook, tmp_path: Path) -> None:
    runbook(
        f"{RECORD}\nimport os, time\n(record.path / 'pid').write_text(str(os.getpid()))\n(record.path / 'asleep').touch()\ntime.sleep(60)"
    )
    with _started(tmp_path) as (process, path):
        process.kill()
        process.communicate()
    pid = (path / "pid").read_text()
    _until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes())
    assert archive.verify(archive.Record(path)).state == "unfinished"


def test_what_killed_runs_left_is_swept(runbook: Runbook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells.tempfile, "gettempdir", lambda: str(tmp_path))
    old, new = tmp_path / "mend-kernel-old", tmp_path / "mend-kernel-new"
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, 0))
    cells._sweep()
    assert not old.exists()
    assert new.exists()


def test_it_runs_in_an_empty_home_with_no_kernel_installed(
    runbook: Runbook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "nowhere"
    home.mkdir()
    for name, value in {
        "HOME": str(home),
        "JUPYTER_PATH": str(home),
        "JUPYTER_DATA_DIR": str(home / "d"),
        "PATH": str(home),
    }.items():
        monkeypatch.setenv(name, value)
    runbook("import sys; print(sys.executable, flush=True)")
    record, error = _run()
    assert error is None
    assert _said(record, "a").strip() == sys.executable
    assert list(home.rglob("*")) == []


def test_the_notebook_does_not_tell_where_it_lay(runbook: Runbook) -> None:
    path = runbook("1")
    record, _ = _run()
    assert str(path.parent) not in (record.path / "notebook.ipynb").read_text()


def test_progress_is_the_journal_in_words_and_what_the_cells_say(runbook: Runbook) -> None:
    runbook(
        f"{RECORD}\nrecord.journal.append('check', {{'question': 'Why?', 'says': 'Because.'}})",
        "import sys; print('step 1: <drop>', file=sys.stderr, flush=True)",
    )
    said: list[str] = []
    _run(progress=said.append)
    assert sorted(said) == ["Why? Because.", "step 1: <drop>"]


@pytest.mark.parametrize(
    "kind",
    [
        "target_seen",
        "check",
        "planned",
        "apply_started",
        "step_started",
        "step_retried",
        "step_failed",
        "step_done",
        "step_resolved",
        "verified",
        "undone",
        "else",
    ],
)
def test_an_event_with_nothing_in_it_is_still_a_sentence(kind: str) -> None:
    assert isinstance(narrate.sentence({"kind": kind, "payload": {}}), str)


def test_papermill_knows_the_engine(runbook: Runbook, tmp_path: Path) -> None:
    path = runbook("print('hi')", DIES, closes=False)
    output = tmp_path / "out.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "--engine", "mend", str(path), str(output)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    states = [
        c["metadata"]["papermill"]["status"]
        for c in json.loads(output.read_text())["cells"]
        if c["cell_type"] == "code"
    ]
    assert states == ["completed", "completed", "failed"]


def test_plain_papermill_runs_a_runbook(runbook: Runbook, tmp_path: Path) -> None:
    path = runbook("print(target)", closes=False)
    output = tmp_path / "out.ipynb"
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MEND_")} | {"HOME": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-m", "papermill", str(path), str(output)], capture_output=True, env=environ, check=True
    )
    assert "lab" in output.read_text()
    assert CLOSES not in output.read_text()


def test_importing_the_engine_imports_nothing_heavy() -> None:
    code = "import sys, mend.engine; print({'papermill', 'nbformat', 'jupyter_client', 'zmq', 'pandas', 'sqlalchemy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

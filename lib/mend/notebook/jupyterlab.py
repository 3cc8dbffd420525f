"""A working copy of a runbook in JupyterLab: on this machine only, behind a token, for one run."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mend import settings
from mend.record.archive import Record
from mend.record.integrity import WORKING

_OVERRIDES = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {
        "windowingMode": "defer"
    },  # every cell is in the page: the browser finds and prints it
}


def serve(
    record: Record, template: Path, given: dict[str, Any], *, environ: Mapping[str, str], options: Sequence[str] = ()
) -> int:
    """Write the working copy and run JupyterLab on it until it is stopped; returns its exit code."""
    write_copy(record, template, given)
    token, port = secrets.token_urlsafe(24), _free_port()
    url = f"http://127.0.0.1:{port}/lab/tree/{WORKING}?token={token}"
    with tempfile.TemporaryDirectory(prefix="mend-lab-") as folder:
        command = [*_command(record, folder, port), *options]
        env = {
            **environ,
            **_places(),
            "JUPYTER_TOKEN": token,
        }  # in the environment: a command line is there for all to read
        return _serve(command, env, f"Run {record.run_id}\nOpen {url}\nStop with Ctrl-C.")


def write_copy(record: Record, template: Path, given: Mapping[str, Any]) -> None:
    """The template with the parameters put in, as papermill would."""
    import nbformat
    from papermill.parameterize import parameterize_notebook

    notebook = nbformat.read(template, as_version=4)
    notebook.metadata.setdefault("papermill", {})
    for cell in notebook.cells:
        cell.metadata.setdefault("tags", [])  # papermill asks every cell for them
    if given:
        notebook = parameterize_notebook(notebook, dict(given), engine_name="mend")
    record.save(WORKING, nbformat.writes(notebook) + "\n")


def _command(record: Record, folder: str, port: int) -> list[str]:
    overrides = Path(folder) / "settings"
    overrides.mkdir()
    (overrides / "overrides.json").write_text(json.dumps(_OVERRIDES), encoding="utf-8")
    command = [
        sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={record.path}", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--ServerApp.answer_yes=True", "--Application.log_level=WARN",
        f"--LabApp.app_settings_dir={overrides}", f"--LabApp.workspaces_dir={folder}/workspaces",
    ]  # fmt: skip
    if os.geteuid() == 0:
        command.append("--allow-root")
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        command.append("--no-browser")  # else a text browser may take over the terminal
    return command


def _places() -> dict[str, str]:
    """The kernel works in the record's folder; what is found from the operator's own folder is named outright."""
    config = settings.find()
    return {"MEND_OUTPUTS": str(settings.outputs())} | ({"MEND_CONFIG": str(config)} if config else {})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(command: list[str], env: Mapping[str, str], greeting: str) -> int:
    """Until JupyterLab ends; SIGTERM and Ctrl-C are passed on, from before it starts, so that nothing is left behind."""
    started: list[subprocess.Popen[bytes]] = []
    stopped = threading.Event()

    def stop(_number: int, _frame: object) -> None:
        stopped.set()
        for process in started:
            process.terminate()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        started.append(subprocess.Popen(command, env=env))
        if stopped.is_set():
            started[0].terminate()
        print(greeting, flush=True)
        return started[0].wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

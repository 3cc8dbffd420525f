"""``mend demo``: a migration breaks on a practice database, and is mended in front of the newcomer."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from mend import lab
from mend.command import commands, screen
from mend.database import parameters
from mend.errors import LabFailed, VerificationFailed
from mend.record import archive

if TYPE_CHECKING:
    from mend.lab import Incident

SLUG = "failed_migration"


def run(*, rows: int) -> int:
    """Break, triage, plan, apply, upgrade, verify.  0 when the last word is healthy; ends with the report's path."""
    began = time.monotonic()
    screen.heading(f"1. Break: a real `alembic upgrade` fails on a practice shop with {rows:,} orders")
    incident = lab.start(SLUG, rows=rows, progress=screen.say)
    screen.say(_last_error(incident))
    screen.heading("2. Triage: what is this error?")
    commands.triage("lab", None, text="", file=str(incident.error_file), json=False)
    screen.heading("3. Plan: which operations ran, and what would mend it? Nothing is changed yet")
    values = parameters.validated(SLUG, {"target": "lab"})
    planned = _done(commands.run(SLUG, values, action="plan"), "planned")
    made = planned.plan()
    if made is None:
        raise LabFailed(f"Run {planned.run_id} made no plan. Only the lab was touched. `mend lab reset` starts afresh.")
    screen.heading(f"4. Apply: you would review the plan, then approve it by its digest, {made.digest()}")
    applied = _done(
        commands.run(SLUG, values | {"dry_run": False, "approve": made.digest()}, action="apply", of=planned.run_id),
        "completed",
    )
    screen.heading("5. Go on: `alembic upgrade head`")
    _upgrade(incident)
    screen.heading("6. Verify: are the records whole?")
    for record in (planned, applied):
        verdict = archive.verify(record)
        screen.say(f"{verdict.run_id}: {verdict.state}")
        if verdict.state != "whole":
            raise VerificationFailed(
                f"The record {verdict.run_id} is {verdict.state}: {verdict.why}. Only the lab was touched."
            )
    screen.say("the lab's server runs on; `" + screen.command("mend lab stop") + "` stops it")
    screen.heading(
        f"Done in {time.monotonic() - began:.0f} s. The database is mended; `{screen.command(f'mend undo {applied.run_id}')}` would take it back. The report:"
    )
    screen.out(str(applied.path / "report.html"))
    return 0


def _done(ended: commands.Ended, outcome: str) -> archive.Record:
    """Print the run; anything but the outcome that the demo is about ends it."""
    record, error = ended
    commands.told(record, None, json=False)
    if error is not None:
        raise error
    if record.outcome != outcome:
        raise LabFailed(
            f"Run {record.run_id} ended {record.outcome}, not {outcome}. Only the lab was touched. Read {record.path / 'report.html'}."
        )
    return record


def _last_error(incident: Incident) -> str:
    """The last line of the saved error that says what went wrong."""
    lines = [line.strip() for line in incident.error_file.read_text(encoding="utf-8").splitlines()]
    return next((line for line in reversed(lines) if "Error" in line or "psycopg" in line), lines[-1] if lines else "")


def _upgrade(incident: Incident) -> None:
    command = [sys.executable, "-m", "alembic", "-c", str(incident.alembic_ini), "upgrade", "head"]
    done = subprocess.run(
        command, cwd=incident.alembic_ini.parent, capture_output=True, text=True, timeout=600, check=False
    )
    for line in done.stderr.splitlines()[-5:]:
        screen.say(line)
    if done.returncode:
        raise LabFailed(
            f"`alembic upgrade head` failed with exit code {done.returncode}. Only the lab was touched. `mend lab reset` starts afresh."
        )

"""Tells whether a record's folder still is what it was when it was sealed.  Reads files; imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mend import journal
from mend.errors import RecordDamaged
from mend.record import account

State = Literal["whole", "edited", "truncated", "unfinished", "missing"]

NOTEBOOK, JOURNAL, PLAN, SUMMARY, REPORT = "notebook.ipynb", "journal.jsonl", "plan.json", "record.json", "report.html"
WORKING = "working.ipynb"  # what JupyterLab has open; it may be saved again at any time, so it is evidence of nothing


@dataclass(frozen=True)
class Verdict:
    """What verify found."""

    run_id: str
    state: State
    why: str = ""


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of the record but record.json itself and what JupyterLab still writes."""
    names = sorted(
        p.name
        for p in folder.iterdir()
        if p.is_file() and not p.name.startswith(".") and p.name not in (SUMMARY, WORKING)
    )
    return {name: journal.sha256((folder / name).read_bytes()) for name in names}


def _events(folder: Path) -> list[journal.Event]:
    return list(journal.read(folder / JOURNAL))


def _kept(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / SUMMARY).read_text(encoding="utf-8")))


def verify(folder: Path) -> Verdict:
    """Whether a record is what it was when it was sealed.

    ``missing``: a file is gone. ``unfinished``: the run never ended, or was never archived. ``truncated``: a file's end was cut off.
    ``edited``: anything else differs. ``whole``: nothing does.  Somebody who rewrites journal and record.json together is found out by
    ``against`` only.
    """
    state, why = _verdict(folder)
    return Verdict(folder.name, state, why)


def _verdict(folder: Path) -> tuple[State, str]:
    if not (folder / JOURNAL).exists():
        return "missing", f"{JOURNAL} is gone"
    if not (folder / SUMMARY).exists():
        return _unsealed(folder)
    try:
        kept = _kept(folder)
        sealed = {str(name): str(digest) for name, digest in kept["files"].items()}
    except (ValueError, KeyError, AttributeError, TypeError):
        return "truncated" if _is_cut(folder / SUMMARY) else "edited", f"{SUMMARY} cannot be read"
    if kept.get("mend") != account.FORMAT:
        return "edited", f"{SUMMARY} has format {kept.get('mend')!r}; this mend reads format {account.FORMAT}"
    return _journal_verdict(folder, kept) or _files_verdict(folder, sealed) or _summary_verdict(folder, kept)


def _unsealed(folder: Path) -> tuple[State, str]:
    """No record.json: the run goes on, or its process was killed."""
    try:
        events = _events(folder)
    except RecordDamaged as damage:
        return ("unfinished" if _is_cut(folder / JOURNAL) else "edited"), damage.message
    return "unfinished", "it was never sealed" + (
        "" if account.is_closed(events) else ", and the journal does not say how it ended"
    )


def _journal_verdict(folder: Path, kept: Mapping[str, Any]) -> tuple[State, str] | None:
    length, head = kept["journal"]["length"], kept["journal"]["head"]
    try:
        events = _events(folder)
    except RecordDamaged as damage:
        return ("truncated" if _is_cut(folder / JOURNAL) else "edited"), damage.message
    if len(events) < length:
        return "truncated", f"{JOURNAL} has {len(events)} events; {length} were sealed"
    if len(events) > length or events[-1].hash != head:
        return "edited", f"{JOURNAL} is not the one that was sealed"
    return None


def _files_verdict(folder: Path, sealed: Mapping[str, str]) -> tuple[State, str] | None:
    gone = sorted(name for name in sealed if not (folder / name).exists())
    if gone:
        return "missing", f"{', '.join(gone)}: gone"
    changed = [name for name in sorted(sealed) if journal.sha256((folder / name).read_bytes()) != sealed[name]]
    for name in changed:
        return ("truncated", f"{name} was cut off") if _is_cut(folder / name) else ("edited", f"{name} was changed")
    return None


def _summary_verdict(folder: Path, kept: Mapping[str, Any]) -> tuple[State, str]:
    """record.json says nothing that the journal does not."""
    leak = str(kept.get("leak", ""))
    expected = account.summary(folder.name, _events(folder), files=kept["files"], leak=leak)
    wrong = sorted(key for key in {*expected, *kept} if expected.get(key) != kept.get(key))
    if wrong:
        return "edited", f"{SUMMARY} does not say what the journal says: {', '.join(wrong)}"
    if leak:
        return "unfinished", f"a secret was found in {leak}; it was never archived"
    return "whole", ""


def went_on(folder: Path) -> bool:
    """Whether the journal goes on after it was sealed, and nothing before was changed: a run in JupyterLab that then died.

    Raises: RecordDamaged where the journal does not hold together.
    """
    events = _events(folder)
    try:
        kept = _kept(folder)["journal"]
        length, head = int(kept["length"]), str(kept["head"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return 0 < length < len(events) and events[length - 1].hash == head


def _is_cut(path: Path) -> bool:
    """Whether a file of ours lacks its end."""
    ends = {".html": b"</html>", ".jsonl": b"}"}
    content = path.read_bytes().rstrip()
    return not content.endswith(ends.get(path.suffix, b"}"))


def against(folder: Path, anchor: tuple[int, str] | None) -> Verdict:
    """verify, and compare the journal with the length and head that the target remembers."""
    verdict = verify(folder)
    if verdict.state in ("missing", "edited", "truncated"):
        return verdict
    events = _events(folder)
    if anchor is None:
        ran = any(event.kind == "applied" for event in events)
        return (
            Verdict(folder.name, "edited", "the target knows nothing of this run, which says that it applied a plan")
            if ran
            else verdict
        )
    length, head = anchor
    if len(events) < length:
        return Verdict(folder.name, "truncated", f"{JOURNAL} has {len(events)} events; the target remembers {length}")
    if events[length - 1].hash != head:
        return Verdict(folder.name, "edited", f"event {length} of {JOURNAL} is not the one that the target remembers")
    return verdict

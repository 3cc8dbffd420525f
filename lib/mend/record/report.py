"""report.html: one page that tells what was seen, decided, run, by whom, when, with what result.  It loads nothing and runs nothing.

The story is the executed notebook, rendered and sanitized; where there is none, it is told from the journal and the plan.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from mend.journal import Event
from mend.record import account, markup, narrate, show, tale
from mend.record.markup import escape

if TYPE_CHECKING:
    from mend.record.archive import Record

_END_OF_STEP = {"step_done": "DONE", "step_failed": "failed", "step_resolved": "resolved"}
_ACTIONS = {"plan": "plan", "apply": "apply", "undo": "undo", "resume": "resume", "open": "interactive run"}


def warm_up() -> None:
    """Load what ``page`` needs, before it is needed."""
    tale.sanitized("")
    tale.markdown("")


def page(record: Record, notebook: Path) -> str:
    """The whole page.

    Parameters
    ----------
    notebook : the executed notebook; it may be missing, cut off in the middle, or not run to its end
    """
    events = record.journal.events()
    summary = account.summary(record.run_id, events, files={})
    told = tale.from_notebook(notebook) or tale.from_journal(events, record.plan())
    outcome = str(summary["outcome"])
    return _template().substitute(
        title=escape(f"{summary['slug']}: {outcome}, {record.run_id}"),
        style=f"{markup.style()}\n{markup.style('page')}",
        tone=markup.tone(outcome),
        kicker=escape(f"{summary['slug']} · {_ACTIONS.get(summary['action'], summary['action'])} · {record.run_id}"),
        outcome=escape(show.TITLES.get(outcome, outcome)),
        says=escape(summary["says"] or _one_line(summary)),
        contents="".join(
            f'<li><a href="#{key}">{escape(words)}</a></li>'
            for key, words in [*told.contents, ("timeline", "Timeline")]
        ),
        heading=told.heading or f"<h1>{escape(summary['slug'])}</h1>",
        glance=_glance(record, summary, events),
        facts="".join(
            f"<tr><th>{escape(key)}</th><td>{value}</td></tr>"
            for key, value in _facts(record, summary).items()
            if value
        ),
        story=f"<section>{told.body}</section>",
        timeline=_timeline(events),
        footer=_footer(record, events),
    )


def _template() -> Template:
    return Template(importlib.resources.files("mend").joinpath("styles", "page.html").read_text(encoding="utf-8"))


def _one_line(summary: dict[str, Any]) -> str:
    counts, target = summary["counts"], summary["target"]
    place = f"Database {target['database']}. " if target.get("database") else ""
    checks = f"{counts['checks']} questions asked, {counts['found']} found something" + (
        f", {counts['could_not_check']} could not be answered" if counts["could_not_check"] else ""
    )
    steps = f"; {counts['steps_done']} of {counts['steps']} steps done" if counts["steps"] else ""
    return place + (checks + steps + "." if counts["checks"] else "")


def _glance(record: Record, summary: dict[str, Any], events: Sequence[Event]) -> str:
    """What was found, and the next command: what a reader in a hurry came for."""
    found = [check for check in account.checks(events) if check["verdict"] in ("found", "could_not_check")]
    listed = "".join(f"<li>{markup.badge(c['verdict'])} <span>{escape(_answered(c))}</span></li>" for c in found)
    command, words = _next(record.run_id, summary)
    done = _done(events)
    if not listed and not done and not command:
        return ""
    seen = f"<p><b>What was found</b></p><ul>{listed}</ul>" if listed else ""
    return f'<div class="page-glance mend">{seen}{done}{f"<p><b>{escape(words)}</b></p><pre>{escape(command)}</pre>" if command else ""}</div>'


def _answered(check: Mapping[str, Any]) -> str:
    """The question with its answer: "No" alone says nothing."""
    return f"{check['question']} {check['why'] if check['verdict'] == 'could_not_check' else check['says']}"


def _done(events: Sequence[Event]) -> str:
    """The steps that ran, each with its end."""
    says = {e.payload.get("step"): str(e.payload.get("says", "")) for e in events if e.kind == "step_started"}
    ends = {e.payload.get("step"): _END_OF_STEP[e.kind] for e in events if e.kind in _END_OF_STEP}
    if not says:
        return ""
    verified = account.last(events, "verified")
    rows = [f"<li>{markup.badge(ends.get(step, 'unknown'))} {escape(text)}</li>" for step, text in says.items()]
    if verified:
        rows.append(
            f"<li>{markup.badge('healthy' if verified.get('healthy') else 'failed')} Verified on a new connection</li>"
        )
    return f"<p><b>What was done</b></p><ul>{''.join(rows)}</ul>"


def _next(run_id: str, summary: dict[str, Any]) -> tuple[str, str]:
    """The command that comes next, and what for."""
    match summary["outcome"]:
        case "planned" if summary["counts"]["steps"]:
            return f"mend apply {run_id} --approve {summary['digest']}", "To apply exactly this plan"
        case "unknown" | "interrupted" if summary["counts"]["steps"] and summary["action"] != "plan":
            return f"mend resume {run_id}", "To find out what happened, and go on"
        case "completed" if summary["action"] in ("apply", "resume") and summary["counts"]["steps_done"]:
            return f"mend undo {run_id}", "To take it back"
    return "", ""


def _facts(record: Record, summary: dict[str, Any]) -> dict[str, str]:
    """The head of the page; values are HTML."""
    who, target, versions = summary["who"], summary["target"], summary["versions"]
    pairs = {
        "Target": " · ".join(
            filter(
                None,
                (
                    target.get("name", ""),
                    target.get("database", ""),
                    f"PostgreSQL {target['server_version']}" if target.get("server_version") else "",
                ),
            )
        ),
        "System identifier": str(target.get("system_identifier", "")),
        "When": _when(summary["started"], summary["ended"]),
        "Who": f"{who.get('os_user', '')} on {who.get('host', '')}"
        + (f", database role {who['role']}" if who.get("role") else ""),
        "Approved by": summary["approver"],
        "Incident": summary["incident"],
        "Follows run": summary["of"],
        "Plan": summary["digest"],
        "Parameters": ", ".join(f"{key} = {value!r}" for key, value in summary["parameters"].items() if value != ""),
        "Runbook": f"{summary['runbook'].get('path', '')}, SHA-256 {summary['runbook'].get('sha256', '')[:16]}…"
        + (f", commit {summary['runbook']['commit'][:12]}" if summary["runbook"].get("commit") else ""),
        "Versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "Record": str(record.path.name),
    }
    return {key: escape(text) for key, text in pairs.items()}


def _when(started: str, ended: str) -> str:
    if not started:
        return ""
    seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
    return f"{started[:19].replace('T', ' ')} UTC, for {seconds:,.1f} s"


def _timeline(events: Sequence[Event]) -> str:
    """Every event in a row; the samples of a backfill that follow each other, a second apart, in one."""
    rows: list[str] = []
    for kind, group in groupby(events, key=lambda event: (event.kind, event.payload.get("step"))):
        alike = list(group)
        rows += [_samples(alike)] if kind[0] == "batch_sample" and len(alike) > 1 else map(_line, alike)
    return "".join(rows)


def _samples(events: Sequence[Event]) -> str:
    first, last = events[0], events[-1]
    said = f"{narrate.sentence(last.__dict__)} ({len(events)} samples, the last of {last.time[11:19]})"
    return f"<tr><td>{first.seq}–{last.seq}</td><td>{escape(first.time[11:23])}</td><td>{escape(said)}</td></tr>"


def _line(event: Event) -> str:
    said = narrate.sentence(event.__dict__) or _formal(event)
    return f"<tr><td>{event.seq}</td><td>{escape(event.time[11:23])}</td><td>{escape(said)}</td></tr>"


def _formal(event: Event) -> str:
    """The events that need no word while they happen, and do in an archive."""
    payload = event.payload
    match event.kind:
        case "run_opened":
            return (
                f"Run opened by {payload.get('who', {}).get('os_user')}: {payload.get('action')} {payload.get('slug')}"
            )
        case "approved":
            return f"Plan {payload.get('digest')} approved by {payload.get('approver')} ({payload.get('how')})"
        case "step_xid":
            return f"Step {int(payload.get('step') or 0) + 1}: transaction {payload.get('xid')}, about to commit"
        case "values_read":
            return f"Step {int(payload.get('step') or 0) + 1}: {payload.get('rows'):,} values read from {payload.get('relation')}"
        case "catalog_compared":
            same = "are what they were before" if payload.get("same") else "ARE NOT WHAT THEY WERE BEFORE"
            return f"Step {int(payload.get('step') or 0) + 1}: transaction {payload.get('xid')} is {payload.get('status')}; the rows of pg_attribute {same}"
        case "refused" | "failed":
            return f"{payload.get('error')}: {payload.get('message')}"
        case "run_closed":
            return f"Run closed: {payload.get('outcome')}"
        case "operations" | "differences":
            return f"{len(payload.get('rows', []))} {event.kind} compared"
        case "applied":
            return "All steps done; the journal's length and head are kept in the target"
        case "prevented":
            return f"Proposed: {payload.get('says')}"
        case _:
            return event.kind.replace("_", " ").capitalize()


def _footer(record: Record, events: Sequence[Event]) -> str:
    head = events[-1].hash if events else ""
    return f"<p>Journal: {len(events)} events, head {head}. <code>mend verify {escape(record.run_id)}</code> tells whether this record was changed since.</p>"

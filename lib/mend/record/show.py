"""What the operator sees: pure functions from mend's values to fragments, each with a twin in plain text.

Whatever comes from a database is escaped.  No script, nothing from the network, and nothing that only a colour says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from mend.errors import MendError
from mend.plan import Choice, Plan, Step
from mend.record import markup
from mend.record.markup import Shown, badge, box, escape, facts, folded, paragraph, plain_table, shown, sql, table

if TYPE_CHECKING:
    from mend.database.parameters import Parameter
    from mend.diagnosis import Check, Diagnosis, Prevention

TITLES = {
    "completed": "Done and verified",
    "applied": "Applied, not verified yet",
    "planned": "A plan waits for approval",
    "failed": "Failed",
    "interrupted": "Interrupted",
    "unknown": "Outcome unknown",
    "refused": "Refused: nothing was done",
    "could_not_check": "Could not check",
}


def card(identity: Any, target_name: str, *, lab: bool) -> Shown:
    """Which database this is; LAB in large letters when it is the lab."""
    seen = _as_dict(identity)
    pairs = {
        "Database": f"{seen.get('database')} (oid {seen.get('database_oid')})",
        "Server": f"PostgreSQL {seen.get('server_version')}{', a standby that only reads' if seen.get('in_recovery') else ''}",
        "Role": f"{seen.get('role')}{', superuser' if seen.get('superuser') else ''}",
        "System identifier": str(seen.get("system_identifier")),
    }
    name = '<p class="mend-lab">LAB</p>' if lab else f'<p class="mend-live">{escape(target_name)}</p>'
    rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(text)}</td></tr>" for key, text in pairs.items())
    heading = "LAB" if lab else f"Target {target_name}"
    return shown(
        [box("note" if lab else "bad", [name, f"<table>{rows}</table>"])],
        "\n".join([heading, *(f"{k}: {v}" for k, v in pairs.items())]),
    )


def parameters(declared: Iterable[Parameter], values: Mapping[str, Any]) -> Shown:
    """Each parameter with its value and what it means."""
    rows = [
        {"parameter": p.name, "value": _literal(values.get(p.name, p.default)), "meaning": p.help} for p in declared
    ]
    columns = ("parameter", "value", "meaning")
    return shown([table(columns, rows)], plain_table(columns, rows))


def _literal(raw: Any) -> str:
    return "(empty)" if raw == "" else markup.value(raw)


def check(answered: Check | Mapping[str, Any], *, asks: bool = False) -> Shown:
    """One question and its answer: verdict, sentence, evidence, when it would be healthy, and the SQL.

    ``asks``: the question too, where no heading above asks it.
    """
    record = answered if isinstance(answered, Mapping) else answered.as_record(sample=markup.ROWS)
    verdict, rows = str(record["verdict"]), list(record["sample"])
    says = str(record["says"] if verdict != "could_not_check" else record["why"] or record["says"])
    columns = [str(c) for c in record["columns"]]
    evidence = table(columns, rows, total=int(record["rows"])) if rows else ""
    healthy = str(record["healthy_when"]).rstrip(".")
    parts = [
        paragraph(str(record["question"]), "dim") if asks else "",
        f'<p class="mend-says">{badge(verdict)} {escape(says)}</p>',
        evidence,
        paragraph(f"Healthy when: {healthy}." if healthy else "", "dim"),
        folded("The SQL that ran", sql(record["sql"])) if record["sql"] else "",
    ]
    text = f"[{verdict}] {record['question']}\n{says}\n" + (
        plain_table(columns, rows, total=int(record["rows"])) if rows else ""
    )
    return shown(parts, text)


def verdicts(diagnosis: Diagnosis | Sequence[Mapping[str, Any]]) -> Shown:
    """Every question with its verdict, in one table."""
    records = diagnosis if isinstance(diagnosis, Sequence) else [c.as_record(sample=0) for c in diagnosis.checks]
    rows = [
        {
            "verdict": r["verdict"],
            "question": r["question"],
            "answer": r["why"] if r["verdict"] == "could_not_check" else r["says"],
        }
        for r in records
    ]
    columns = ("verdict", "question", "answer")
    return shown([table(columns, rows)], plain_table(columns, rows))


def operations(rows: Any) -> Shown:
    """Each operation of a revision and whether the database holds what it makes; a frame or its records."""
    records = list(rows) if isinstance(rows, Sequence) else rows.to_dict("records")
    columns = [
        c for c in ("revision", "index", "operation", "objects", "state", "detail") if not records or c in records[0]
    ]
    return shown([table(columns, records)], plain_table(columns, records))


def plan(made: Plan) -> Shown:
    """The options, the steps with their exact SQL, and the digest to approve."""
    parts = [
        _options(made),
        "".join(_step(n, step) for n, step in enumerate(made.steps)),
        "" if made.steps else paragraph("No step is planned."),
        "".join(box("warn", [paragraph(warning)]) for warning in made.warnings),
        _digest(made) if made.steps else "",
        paragraph(made.next),
    ]
    return shown(parts, _plan_text(made))


def _options(made: Plan) -> str:
    rows = "".join(
        f'<tr><td class="mend-key">{escape(o.option)}</td><td>{_choice_badge(o, made.chosen)}</td><td>{escape(o.says)}</td><td>{escape(o.costs if o.possible else o.why_not)}</td></tr>'
        for o in made.options
    )
    return (
        f"<table><thead><tr><th>option</th><th></th><th>does</th><th>costs</th></tr></thead><tbody>{rows}</tbody></table>"
        if rows
        else ""
    )


def _choice_badge(choice: Choice, chosen: str) -> str:
    word, kind = (
        ("CHOSEN", "ok")
        if choice.option == chosen
        else ("POSSIBLE", "none")
        if choice.possible
        else ("NOT POSSIBLE", "none")
    )
    return f'<span class="mend-badge mend-{kind}">{word}</span>'


def _digest(made: Plan) -> str:
    steps = f"{len(made.steps)} step" + ("" if len(made.steps) == 1 else "s")
    return box(
        "note",
        [
            paragraph(f"Digest of this plan ({steps})", "dim"),
            f'<p><span class="mend-digest">{made.digest()}</span></p>',
        ],
    )


def _step(n: int, step: Step) -> str:
    back = "".join(sql(s.sql()) if s.statements else paragraph(s.says) for s in step.undo)
    return "".join([
        f'<div class="mend-step"><p class="mend-says">Step {n + 1}. {escape(step.says)}</p>',
        sql(step.sql()) if step.statements else "",
        diff(str(step.arguments["diff"])) if "diff" in step.arguments else "",
        facts({
            "locks": _locks(step) or "none",
            "in a transaction": _transactions(step),
            "rewrites the table": {True: "yes", None: "unknown"}.get(step.rewrite, "no"),
            "rows": "" if step.rows_expected is None else f"{step.rows_expected:,}",
            "about": "" if step.estimated_s is None else "under 1 s" if step.estimated_s < 1 else f"{step.estimated_s:,.0f} s",
        }),
        folded("How it is taken back", back) if back else "",
        box("bad", [paragraph(f"Cannot be taken back: {step.irreversible}")]) if step.irreversible else "",
        "</div>",
    ])  # fmt: skip


def _locks(step: Step) -> str:
    return ", ".join(
        f"{lock.mode} on {lock.relation}" + (f" ({lock.note})" if lock.note else "") for lock in step.locks
    )


def _transactions(step: Step) -> str:
    if step.kind in ("backfill", "restore"):
        return "a short one for each batch"
    return "one transaction" if step.transactional else "no transaction"


def _terms(step: Step) -> str:
    """Locks, transaction, rewrite, rows and time of a step, in one line."""
    locks = _locks(step) or "none"
    rewrite = {True: "; rewrites the table", None: "; it is not known whether it rewrites the table"}.get(
        step.rewrite, ""
    )
    rows = f"; about {step.rows_expected:,} rows" if step.rows_expected is not None else ""
    takes = f"; about {step.estimated_s:g} s" if step.estimated_s is not None else ""
    return f"-- locks: {locks}; {_transactions(step)}{rewrite}{rows}{takes}"


def _plan_text(made: Plan) -> str:
    lines = [line for o in made.options for line in _option_text(o, made.chosen)]
    for n, step in enumerate(made.steps):
        lines += [f"step {n + 1}: {step.says}", *("    " + line for line in step.sql().splitlines())]
        lines += ["    " + line for line in str(step.arguments.get("diff", "")).splitlines()]
        lines.append(f"    {_terms(step)}")
        lines += _back_text(step)
        lines += [f"    cannot be taken back: {step.irreversible}"] if step.irreversible else []
    lines += [f"warning: {warning}" for warning in made.warnings]
    return "\n".join([*lines, f"digest {made.digest()}" if made.steps else "no step is planned", made.next])


def _option_text(o: Choice, chosen: str) -> list[str]:
    word = " (chosen)" if o.option == chosen else "" if o.possible else " (not possible)"
    more = f"costs: {o.costs}" if o.possible else f"why not: {o.why_not}"
    return [f"option {o.option}{word}: {o.says}", *([f"    {more}"] if (o.costs if o.possible else o.why_not) else [])]


def _back_text(step: Step) -> list[str]:
    """The way back: the SQL of each undo step, or what it does where it has none."""
    lines = [
        line for back in step.undo for line in [*(back.sql().splitlines() if back.statements else [f"-- {back.says}"])]
    ]
    return ["    -- taken back by:", *("        " + line for line in lines)] if lines else []


def undo(made: Plan, run_id: str = "") -> Shown:
    """How to take the plan back: the command, its steps, last first, and what cannot be taken back."""
    back = [step for done in reversed(made.steps) for step in done.undo]
    lasting = [f"{step.says}: {step.irreversible}" for step in made.steps if step.irreversible]
    command = f"mend undo {run_id}" if run_id and back else ""
    parts = [
        "" if made.steps else paragraph("Nothing here: the plan has no step."),
        f"<p>Once applied, it is taken back by <code>{escape(command)}</code>, in this order:</p>" if command else "",
        "".join(
            f'<div class="mend-step"><p class="mend-says">{n + 1}. {escape(s.says)}</p>{sql(s.sql()) if s.statements else ""}</div>'
            for n, s in enumerate(back)
        ),
        "".join(box("bad", [paragraph(f"Not reversible. {line}")]) for line in lasting),
    ]
    text = "\n".join(
        [
            command,
            *(f"{n + 1}. {s.says}\n    {s.sql()}" for n, s in enumerate(back)),
            *(f"not reversible: {line}" for line in lasting),
        ]
    )
    return shown(parts, text or "Nothing here: the plan has no step.")


def prevention(items: Sequence[Prevention]) -> Shown:
    """What would have stopped the incident, with diffs in colour."""
    parts = [paragraph(item.says, "says") + (diff(item.diff) if item.diff else "") for item in items]
    text = "\n\n".join(item.says + (f"\n{item.diff}" if item.diff else "") for item in items)
    return shown(
        parts or [paragraph("Nothing here: no cause was found that a change of the project would have stopped.")], text
    )


def diff(text: str) -> str:
    """A unified diff; additions and removals keep their + and -."""
    kinds = {"+": "add", "-": "del", "@": "hunk"}
    lines = [
        f'<span class="mend-{kinds[line[0]]}">{escape(line)}</span>' if line[:1] in kinds else escape(line)
        for line in text.splitlines()
    ]
    return "<pre>" + "\n".join(lines) + "</pre>"


def outcome(text: str, kind: str) -> Shown:
    """How it ended: one of the record's outcomes, in words."""
    title = TITLES.get(kind, kind)
    return shown([box(markup.tone(kind), [paragraph(title, "title"), paragraph(text)])], f"{title}. {text}")


def error(raised: MendError | Mapping[str, Any]) -> Shown:
    """An error of ours: what happened, the state of the database, what to do; and what changed, where something did."""
    if isinstance(raised, MendError):
        name, message, lines = type(raised).__name__, raised.message, raised.facts.get("differences", ())
    else:
        name, message, lines = (
            str(raised.get("error", "")),
            str(raised.get("message", "")),
            raised.get("differences", ()),
        )
    lines = [line for line in lines or () if line not in message]
    listed = "".join(f"<li>{escape(line)}</li>" for line in lines)
    parts = [paragraph(name, "title"), paragraph(message, "message"), f"<ul>{listed}</ul>" if listed else ""]
    return shown([box("bad", parts)], "\n".join([f"{name}: {message}", *(f"- {line}" for line in lines)]))


def progress(lines: Sequence[str], *, done: bool = False, last: int = 12) -> Shown:
    """What an apply has said so far; the last lines."""
    text = "\n".join(lines[-last:]) or "Starting."
    return shown([box("ok" if done else "note", [sql(text)])], text)


def _as_dict(identity: Any) -> Mapping[str, Any]:
    return asdict(identity) if is_dataclass(identity) and not isinstance(identity, type) else dict(identity)

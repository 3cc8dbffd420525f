"""The questions of version_skew about what was read, each with its answer.  Pure: everything was read before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd

from mend.diagnosis import Check, Verdict
from mend.errors import MendError
from mend.skew import notes, safety
from mend.skew.schemas import Cell
from mend.skew.sides import Facts

_HEADS = ["revision", "where", "says"]
_MATRIX = ["application", "schema", "verdict", "why"]
_SAID = {"works": "work", "could_not_check": "could not be checked", "breaks": "break"}
_ANSWERS = ["application", "asked", "verdict", "says", "sqlstate"]


def heads(facts: Facts) -> Check:
    """Which revisions does only one side know?"""
    past = facts.past
    rows = [(one, "in the code, not in the database", past.revisions[one].doc) for one in facts.pending]
    rows += [
        (one, "in the database, not in the code", "no file has it: the database is ahead of this code")
        for one in facts.unknown
    ]
    rows += [
        (one, "in the database, not in the old application", past.revisions[one].doc) for one in _beyond_old(facts)
    ]
    code = ", ".join(past.heads) or "none"
    stands = ", ".join(facts.table.rows) or "none"
    told = [f"the code's heads are {code}, the database is at {stands}"]
    told += [f"the database lacks {len(facts.pending)} of the code's revisions"] if facts.pending else []
    told += [f"the code does not know {', '.join(facts.unknown)}"] if facts.unknown else []
    told += [f"the old application was written for {', '.join(facts.old_heads)}"] if facts.old_heads else []
    return Check(
        "heads", "Do the code and the database know the same revisions?", "found" if rows else "healthy", "; ".join(told)[:1].upper() + "; ".join(told)[1:] + ".",
        "Every revision of the code is in the database, and every version row is known to the code.",
        pd.DataFrame(rows, columns=_HEADS), facts.version_sql,
    )  # fmt: skip


def _beyond_old(facts: Facts) -> tuple[str, ...]:
    """What was applied since the revision that the old application knows."""
    if not facts.old_heads:
        return ()
    known = facts.past.ancestors(facts.old_heads)
    applied = facts.past.ancestors(facts.table.rows)
    return tuple(one for one in facts.past.ordered() if one in applied - known)


def expectations(facts: Facts) -> Check:
    """What does an application expect that this database does not have?"""
    asks = partial(
        Check, name="expectations", question="Does the database have what the applications expect?",
        healthy_when="Everything that each version reads and writes is there; every statement was analysed, none executed.",
    )  # fmt: skip
    cells = [one for one in facts.live_cells() if one.application.given]
    frame = answered(cells)
    if not cells:
        return asks(
            verdict="could_not_check",
            says="No application was named.",
            frame=frame,
            why="pass metadata (module:attribute) or statements (a file of SQL)",
        )
    broken = [one for one in cells if one.verdict == "breaks"]
    open_ = [one for one in cells if one.verdict == "could_not_check" or one.application.why_not]
    says = " ".join(f"The {one.application.name} application {_word(one)}." for one in cells)
    if broken:
        return asks(verdict="found", says=says, frame=frame)
    if open_:
        return asks(verdict="could_not_check", says=says, frame=frame, why="; ".join(one.why for one in open_))
    return asks(verdict="healthy", says=says, frame=frame)


def _word(cell: Cell) -> str:
    return {"works": "works with it", "breaks": f"does not work with it ({cell.why})"}.get(
        cell.verdict, f"could not be checked: {cell.why}"
    )


def answered(cells: Sequence[Cell]) -> pd.DataFrame:
    """What went wrong: application str · asked str · verdict str · says str · sqlstate str."""
    rows = [
        (cell.application.name, one.where, one.verdict, one.why, one.sqlstate)
        for cell in cells
        for one in cell.answers
        if one.verdict != "works"
    ]
    rows += [
        (one.application.name, one.application.source, "could_not_check", one.application.why_not, "")
        for one in cells
        if one.application.why_not
    ]
    return pd.DataFrame(rows, columns=_ANSWERS, dtype="str")


def unknown_columns(facts: Facts) -> Check:
    """Which NOT NULL columns does an application's INSERT not know?"""
    cells = [one for one in facts.live_cells() if one.application.given]
    rows = [
        (cell.application.name, one.subject, one.where, one.why)
        for cell in cells
        for one in cell.answers
        if one.sqlstate == "23502"
    ]
    frame = pd.DataFrame(rows, columns=["application", "column", "asked", "says"], dtype="str")
    asks = partial(
        Check, name="unknown_columns", question="Which NOT NULL columns does an application not know?",
        healthy_when="Every NOT NULL column that an INSERT leaves out has a default.", frame=frame,
    )  # fmt: skip
    if len(frame):
        return asks(
            verdict="found",
            says=f"{', '.join(dict.fromkeys(frame['column']))}: an INSERT that does not know it fails with SQLSTATE 23502.",
        )
    unread = [one for one in cells if one.application.why_not or not one.answers]
    if unread or not cells:
        return asks(
            verdict="could_not_check",
            says="Nobody can tell.",
            why=unread[0].why if unread else "no application was named",
        )
    return asks(verdict="healthy", says="None.")


def matrix(facts: Facts) -> Check:
    """Which version of the application works with which schema?"""
    rows = [(f"{one.application.name} application", one.schema.says(), one.verdict, one.why) for one in facts.cells]
    frame = pd.DataFrame(rows, columns=_MATRIX, dtype="str")
    counts = {word: sum(one.verdict == word for one in facts.cells) for word in _SAID}
    told = ", ".join(f"{count} {_SAID[word]}" for word, count in counts.items() if count)
    broken = [
        f"the {one.application.name} application with the {one.schema.name} schema"
        for one in facts.cells
        if one.verdict == "breaks"
    ]
    told += f": {', '.join(broken)}" if broken else ""
    ahead = [
        one.verdict for one in facts.cells if one.schema.live or one.schema.name == "new"
    ]  # the schema before is history
    verdict: Verdict = "found" if "breaks" in ahead else "could_not_check" if "could_not_check" in ahead else "healthy"
    open_ = [f"{row[0]} with the {row[1]}: {row[3]}" for row in rows if row[2] == "could_not_check"]
    return Check(
        "matrix", "Which version of the application works with which schema?", verdict, f"Of the four: {told}.",
        "All work with the schema as it is, and as it will be: then code and database can be deployed in any order.", frame, why="; ".join(open_) if verdict == "could_not_check" else "",
    )  # fmt: skip


def pending(facts: Facts) -> Check:
    """Are the pending revisions safe for the application that runs now?"""
    frame = pd.DataFrame([one.row() for one in facts.judged], columns=safety.COLUMNS)
    asks = partial(
        Check, name="pending", question="Are the pending revisions safe for the application that runs now?",
        healthy_when="Every change is one that an application may leave out: safe is yes in every line.", frame=frame,
        sql="\n".join(f"-- {s.revision} operation {s.operation}\n{s.sql};" for one in facts.operations() for s in one.statements),
    )  # fmt: skip
    if not facts.pending:
        return asks(verdict="healthy", says="None is pending.")
    if facts.unreplayed or facts.made is None or facts.made.stopped:
        why = facts.unreplayed or (facts.made.stopped if facts.made else "")
        return asks(verdict="could_not_check", says="The pending revisions could not all be replayed.", why=why)
    bad = [one for one in facts.judged if one.safe == "no"]
    perhaps = [one for one in facts.judged if one.safe == "depends"]
    says = (
        f"No: {bad[0].object}: {bad[0].why}" + (f", and {len(bad) - 1} more." if len(bad) > 1 else ".") if bad
        else f"It depends: {perhaps[0].object}: {perhaps[0].why}." if perhaps else "Yes: an application that does not know them goes on."
    )  # fmt: skip
    return asks(verdict="found" if bad or perhaps else "healthy", says=says)


def stale(facts: Facts) -> Check:
    """Which sessions may hold plans that were made before the change?"""
    frame = facts.sessions
    asks = partial(
        Check, name="stale", question="Which sessions were there before the schema changed?",
        healthy_when="There are 0: each session connected after the change, so its prepared statements were made for this schema.",
        frame=frame, sql=str(frame.attrs.get("sql", "")),
    )  # fmt: skip
    if frame.empty:
        return asks(verdict="healthy", says="No other session is connected.")
    if facts.changed_at is None:
        return asks(
            verdict="could_not_check",
            says=f"{len(frame)} sessions are connected; since when the schema is as it is, is not known.",
            why=facts.changed_how,
        )
    hidden = int(frame["backend_start"].isna().sum())
    old = int((frame["before"] == True).sum())  # noqa: E712 a column with missing values
    since = f"{facts.changed_at:%Y-%m-%d %H:%M:%S %Z} ({facts.changed_how})"
    if hidden and not old:
        return asks(
            verdict="could_not_check",
            says=f"Of {hidden} sessions the start is not visible.",
            why="they belong to other roles: grant pg_monitor",
        )
    says = (
        f"{old} sessions are older than the change of {since}: a prepared statement of theirs may fail with 'cached plan must not change "
        "result type' (0A000). Recycle the connection pools, or let them DISCARD ALL." if old else f"Every session is younger than the change of {since}."
    )  # fmt: skip
    return asks(verdict="found" if old else "healthy", says=says)


def standing(facts: Facts) -> Check:
    """What is left of a change that was made in phases, or of an emergency repair?"""
    frame = pd.DataFrame(
        [(one.phase, one.says, one.run_id, one.noted_at) for one in facts.notes], columns=["phase", "says", "run", "at"]
    )
    shims = [one for one in facts.notes if one.phase == notes.SHIM]
    begun = notes.standing_changes(facts.notes)
    told = [f"the emergency repair of run {one.run_id} is to be taken away again ({one.says})" for one in shims]
    told += [f"a change in phases was begun and is not at its end ({begun[-1].says})"] if begun else []
    text = "; ".join(told)
    return Check(
        "standing", "Is a change in phases, or an emergency repair, still open?", "found" if told else "healthy",
        f"{text[:1].upper()}{text[1:]}." if told else "No.", "There are 0 emergency repairs, and each change in phases came to its contract.", frame,
    )  # fmt: skip


QUESTIONS: tuple[Callable[[Facts], Check], ...] = (
    heads,
    expectations,
    unknown_columns,
    matrix,
    pending,
    stale,
    standing,
)


def warnings(facts: Facts, checks: Sequence[Check]) -> tuple[str, ...]:
    """What an approver must know besides the steps."""
    replayed = facts.made.warnings if facts.made else ()
    unchecked = (f"{one.question} Could not check: {one.why}" for one in checks if one.verdict == "could_not_check")
    probe = (f"env.py: {facts.environment.message}",) if isinstance(facts.environment, MendError) else ()
    return (*probe, *replayed, *unchecked)

"""The questions of migration_conflict, answered from its facts; what a plan must have reached.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from mend.conflict.branches import Meeting
from mend.conflict.conflict_ways import Way
from mend.conflict.conflicts import FOREIGN, SISTER, STRANGE, UNKNOWN, Facts
from mend.diagnosis import Check, Diagnosis
from mend.errors import MendError
from mend.histories import graph


@dataclass(frozen=True)
class Seen:
    """The facts and the ways out of them."""

    facts: Facts
    ways: tuple[Way, ...]


def graph_is_whole(facts: Facts) -> Check:
    """Is the revision graph whole?"""
    past = facts.past
    found = [
        f"{child} needs {', '.join(lacking)}, which has no file" for child, lacking in past.missing_parents.items()
    ]
    found += [f"{len(paths)} files have the id {one}" for one, paths in past.duplicates.items()]
    found += [f"a circle: {', '.join(past.cycles)}"] if past.cycles else []
    found += [f"{one} is longer than the {facts.width} characters of the version table" for one in facts.too_long]
    told = {p for one in (*past.duplicates, *past.cycles, *past.missing_parents, *facts.too_long) for p in [one]}
    found += [
        f"{one.path.name}: {one.problem}" for one in past.broken if one.id not in told and not _only_long(one.problem)
    ]
    roots = sum(1 for one in past.files if not one.down)
    forks = sum("branch point" in of for of in graph.kinds(past).values())
    merges = sum("merge point" in of for of in graph.kinds(past).values())
    says = f"{len(past.files)} files, {len(past.heads)} heads, {roots} roots, {forks} branch points, {merges} merges."
    return Check(
        "graph",
        "Is the revision graph whole?",
        "found" if found else "healthy",
        f"{says} {'; '.join(found)}." if found else f"{says} Every parent is there.",
        "Every parent has a file, every id one file, and no revision is its own ancestor",
        graph.telling(graph.frame(past)),
    )


def _only_long(problem: str) -> bool:
    return bool(re.fullmatch(r"the id has \d+ characters; the version table holds \d+", problem))


def heads(facts: Facts) -> Check:
    """Is there one head, or only heads that are meant to stand apart?"""
    past = facts.past
    apart = {head for group in facts.groups for head in group}
    rows = [
        {
            "revision": head,
            "stands": "apart by accident" if head in apart else "alone" if len(past.heads) == 1 else "apart on purpose",
            "own revisions": len(graph.own(past, head, past.heads)),
            "applied here": head in facts.applied,
            "labels": ", ".join(
                sorted({label for one in graph.own(past, head, past.heads) for label in past.revisions[one].labels})
            ),
            "doc": past.revisions[head].doc,
        }
        for head in past.heads
    ]
    says = (
        f"{' and '.join(f'{len(group)} heads stand apart by accident: {chr(44).join(group)}' for group in facts.groups)}."
        if apart
        else f"{len(past.heads)} heads, each on purpose (a label, a root or a dependency of its own)."
        if len(past.heads) > 1
        else f"One head: {', '.join(past.heads) or 'none'}."
    )
    frame = pd.DataFrame(rows, columns=["revision", "stands", "own revisions", "applied here", "labels", "doc"])
    return Check(
        "heads",
        "Is there one head, or only heads that are meant?",
        "found" if apart else "healthy",
        says,
        "There is 1 head, or each head has a label or a root of its own",
        frame,
    )


def version_rows(facts: Facts) -> Check:
    """Do the version rows fit the files?"""
    frame = facts.version_rows
    strange = frame[(frame["table_is"] != FOREIGN) & frame["position"].isin(STRANGE)]
    rows = ", ".join(facts.table.rows) or "none"
    told = "; ".join(
        dict.fromkeys(f"{r.version_num} in {r.schema}.{r.table} is {r.position}" for r in strange.itertuples())
    )
    says = f"The version table {facts.table.schema}.{facts.table.name} holds: {rows}." + (
        f" It does not fit: {told}." if told else ""
    )
    return Check(
        "version_rows",
        "Do the version rows fit the files?",
        "found" if told else "healthy",
        says,
        "Each row is a revision that a file has, and none stands for another",
        frame,
        facts.version_sql,
    )


def version_tables(facts: Facts) -> Check:
    """Can the version tables hold what they must?"""
    frame = facts.tables
    mine = frame[(frame["schema"] == facts.table.schema) & (frame["table"] == facts.table.name)]
    unkeyed = len(mine) > 0 and not bool(mine["has_key"].iloc[0])
    says = f"There are {len(frame)} version tables." if len(frame) != 1 else "There is one version table."
    says += " No key keeps a row of the configured one from standing twice." if unkeyed else ""
    return Check(
        "version_tables",
        "Can the version table hold a row twice, or not hold an id?",
        "found" if unkeyed or facts.too_long else "healthy",
        says,
        "The configured table has a key, and is as wide as the longest id",
        frame,
        str(frame.attrs.get("sql", "")),
    )


def git_has(facts: Facts) -> Check:
    """What does git still have of what is missing?"""
    kept = facts.kept
    asks = partial(
        Check,
        name="git",
        question="What does git still have of what is missing?",
        healthy_when="No file is missing, and no id was given to another migration",
    )
    ordered = sorted(kept.kept, key=lambda one: one.revision.id not in facts.missing)
    rows = [
        {
            "revision": one.revision.id,
            "is": "missing"
            if one.revision.id in facts.missing
            else "its id has another file now"
            if one in facts.reused
            else "moved"
            if one.moved
            else "deleted",
            "down_revision": ", ".join(one.revision.down),
            "how": one.how,
            "date": one.date,
            "subject": one.subject,
            "file": one.revision.path.name,
        }
        for one in ordered
    ]
    columns = ["revision", "is", "down_revision", "how", "date", "subject", "file"]
    frame = pd.DataFrame(rows, columns=columns, dtype="str")
    there = [one for one in facts.missing if kept.of(one)]
    reused = (
        f" Given to another migration: {', '.join(one.revision.id for one in facts.reused)}." if facts.reused else ""
    )
    if not facts.missing:
        says = "No file is missing." + (reused or f" {'git was not needed: ' + kept.why if kept.why else ''}".rstrip())
        return asks(verdict="found" if facts.reused else "healthy", says=says, frame=frame)
    if kept.why:
        return asks(
            verdict="could_not_check",
            says="git could not be asked.",
            why=f"{kept.why}; missing: {', '.join(facts.missing)}",
        )
    says = f"Missing: {', '.join(facts.missing)}. git has: {', '.join(there) or 'none of them'}.{reused}"
    return asks(verdict="found", says=says, frame=frame)


def elsewhere(facts: Facts) -> Check:
    """Which databases have the branches already?"""
    past = facts.past
    apart = facts.fork.heads if facts.fork else past.heads
    own = {head: graph.own(past, head, apart) for head in apart}
    known = [("this target", facts.table.rows, ""), *((one.target, one.rows, one.why) for one in facts.elsewhere)]
    rows = [
        {"database": name, "version_rows": ", ".join(has), "could not check": why}
        | {head: "" if why else f"{len(set(own[head]) & past.ancestors(has))} of {len(own[head])}" for head in apart}
        for name, has, why in known
    ]
    bad = [one.target for one in facts.elsewhere if one.why]
    asks = partial(
        Check,
        name="elsewhere",
        question="Which databases have the branches already?",
        healthy_when="Every database that was named could be asked",
        frame=pd.DataFrame(rows),
    )
    if bad:
        return asks(
            verdict="could_not_check",
            says="Not all could be asked.",
            why=f"could not ask {', '.join(bad)}: {facts.elsewhere[0].why}",
        )
    says = (
        f"{len(known)} databases were asked." if facts.elsewhere else "Only this one was asked; name others in `also`."
    )
    return asks(verdict="healthy", says=says)


def shared(facts: Facts) -> Check:
    """Which objects do both branches touch?"""
    meeting, why = _meeting(facts)
    asks = partial(
        Check,
        name="shared",
        question="Which objects do both branches touch?",
        healthy_when="No object is changed in more than one branch",
    )
    if meeting is None:
        return asks(verdict="could_not_check" if why else "healthy", says=_nothing(facts), why=why)
    columns = ["kind", "identity", *facts.fork.heads] if facts.fork else []
    frame = pd.DataFrame(
        [{"kind": kind, "identity": name, **line} for kind, name, line in meeting.shared], columns=columns
    )
    exact = [name for kind, name, _ in meeting.shared if kind != "relation"]
    tables = [name for kind, name, _ in meeting.shared if kind == "relation"]
    says = (
        f"Both work on {', '.join(tables) or 'no table'}; the same object: {', '.join(dict.fromkeys(exact)) or 'none'}."
    )
    return asks(verdict="found" if exact else "healthy", says=says, frame=frame)


def order(facts: Facts) -> Check:
    """Does it matter in which order the branches run?"""
    meeting, why = _meeting(facts)
    asks = partial(
        Check,
        name="order",
        question="Does it matter in which order the branches run?",
        healthy_when="Both orders leave the same catalog. Rows are not compared",
    )
    if meeting is None:
        return asks(verdict="could_not_check" if why else "healthy", says=_nothing(facts), why=why)
    rows = [
        {"kind": kind, "identity": name, **{f"from {h}": text or "(absent)" for h, text in ends.items()}}
        for kind, name, ends in meeting.differences
    ]
    if meeting.failures:
        return asks(verdict="found", says=f"Yes: {'; '.join(meeting.failures)}.", frame=pd.DataFrame(rows))
    says = f"Yes: {len(rows)} objects differ by the order." if rows else "No: every order leaves the same catalog."
    return asks(verdict="found" if rows else "healthy", says=says, frame=pd.DataFrame(rows))


def proof(facts: Facts) -> Check:
    """Does the upgrade from every head arrive?"""
    meeting, why = _meeting(facts)
    asks = partial(
        Check,
        name="proof",
        question="Does the upgrade from every head arrive?",
        healthy_when="From each head the upgrade ends at the same version row and the same catalog",
    )
    if meeting is None:
        return asks(verdict="could_not_check" if why else "healthy", says=_nothing(facts), why=why)
    rows = [
        {
            "from": one.head,
            "through": ", ".join(r for other in meeting.branches if other is not one for r in other.revisions)
            or "nothing",
            "arrives at": ", ".join(end.versions) if (end := one.walked.at(meeting.end)) else "nowhere",
            "detail": f"{one.walked.failed_at}: {one.walked.error}" if one.walked.error else "",
        }
        for one in meeting.branches
    ]
    sure = " ".join(f"{warning[:1].upper()}{warning[1:]}." for warning in meeting.warnings)
    says = f"{'Yes' if meeting.proven else 'No'}, in scratch, with {meeting.end} as the merge. {sure}".rstrip()
    return asks(verdict="healthy" if meeting.proven else "found", says=says, frame=pd.DataFrame(rows))


def _meeting(facts: Facts) -> tuple[Meeting | None, str]:
    """The branches' meeting, or why it is not known; ('' where there is none to know)."""
    if facts.fork is None:
        return None, ""
    if isinstance(facts.fork.meeting, MendError):
        return None, facts.fork.meeting.message
    return facts.fork.meeting, ""


def _nothing(facts: Facts) -> str:
    if facts.fork is not None:
        return "The branches could not be walked."
    return (
        "alembic cannot read the history as it is, so nothing was walked."
        if _unreadable(facts)
        else "No branches are to be joined."
    )


def _unreadable(facts: Facts) -> bool:
    return bool(facts.past.missing_parents or facts.past.cycles or facts.past.duplicates)


def by_hand(facts: Facts) -> str:
    """What only a person can mend, in words."""
    told = [f"{one.path}: {one.problem}" for one in facts.past.broken if one.problem.startswith(("merge conflict", "syntax", "not UTF-8", "no revision", "cannot be read", "no upgrade"))]  # fmt: skip
    lines = [f"Repair by hand: {'; '.join(told)}."] if told else []
    if facts.past.cycles:
        lines.append(
            f"{', '.join(facts.past.cycles)} form a circle: say which of them is wrong (revision) and what it comes after (onto), option reparent."
        )
    if facts.reused:
        lines.append(
            f"{', '.join(one.revision.id for one in facts.reused)}: the id was another migration's before. Compare the database with environment_mismatch."
        )
    rows = facts.version_rows
    sisters = rows[(rows["table_is"] == SISTER) & rows["position"].isin(STRANGE)]
    if len(sisters):
        tables = ", ".join(dict.fromkeys(f"{r.schema}.{r.table}" for r in sisters.itertuples()))
        lines.append(
            f"Rows of {tables} do not fit either: run mend with env.py configured for that schema, one after the other."
        )
    if facts.rows_that_are(UNKNOWN):
        lines.append(
            "If a newer release of the application has the file, run that release: nothing is wrong with the database then."
        )
    return " ".join(lines)


def warnings(facts: Facts, diagnosis: Diagnosis, chosen: str) -> tuple[str, ...]:
    """What whoever approves the plan must know."""
    found = [f"{c.question} Could not check: {c.why}" for c in diagnosis.checks if c.verdict == "could_not_check"]
    meeting, _ = _meeting(facts)
    if chosen == "merge" and meeting is not None and meeting.differences:
        names = ", ".join(name for _, name, _ in meeting.differences[:5])
        found.append(
            f"The order of the branches matters: databases that came from different heads will differ in {names}."
        )
    if chosen == "reparent" and not facts.elsewhere:
        found.append("Only this database was asked whether it has the branch. Name the others in `also`.")
    if (
        chosen == "merge"
        and facts.fork
        and not isinstance(facts.fork.draft, MendError | None)
        and facts.fork.draft.hooks
    ):
        found.append("The project's post_write_hooks are not run on the file.")
    return tuple(found)


def unmet(chosen: str, end: str, before: Mapping[str, Any], facts: Facts) -> list[str]:
    """What a plan of this option promised and these facts do not show."""
    problems = [
        f"version row {row} is {position}" for position in _rows_of(chosen) for row in facts.rows_that_are(position)
    ]
    if chosen == "merge":
        problems += [] if end in facts.past.heads else [f"{end} is not a head"]
        meeting, why = _meeting(facts)
        if meeting is None or meeting.failures:
            problems.append(
                f"the upgrade from every head is not proven: {why or (meeting and '; '.join(meeting.failures))}"
            )
    if chosen in ("merge", "reparent") and facts.groups and len(facts.past.heads) >= _heads_before(before):
        problems.append(f"heads still stand apart: {'; '.join(', '.join(group) for group in facts.groups)}")
    if chosen in ("restore", "stub", "reparent", "rename"):
        lacked = _lacked_before(before)
        problems += [
            f"{child} needs {', '.join(p)}, which no file has"
            for child, p in facts.past.missing_parents.items()
            if set(p) - lacked
        ]
        if chosen in ("restore", "stub") and lacked and lacked <= set(facts.missing):
            problems.append(f"no file of {', '.join(sorted(lacked))} is there")
    return problems


def _lacked_before(before: Mapping[str, Any]) -> set[str]:
    """Parents and dependencies that no file had; a label counts as one."""
    parents = {p for text in before["revisions"].values() for p in str(text).split(", ")} - {"(none)"}
    return parents - {name.partition(" (")[0] for name in before["revisions"]}


def _rows_of(chosen: str) -> tuple[str, ...]:
    return {"set_row": (UNKNOWN,), "delete_row": (), "restore": (UNKNOWN,)}.get(chosen, ())


def _heads_before(before: Mapping[str, Any]) -> int:
    down = {p for parents in before["revisions"].values() for p in str(parents).split(", ")}
    return len({name.partition(" (")[0] for name in before["revisions"]} - down)

"""What was seen of a key that is to be unique, and the answers that follow from it.  Values only; `duplicate_rows` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mend.constraints import duplicates, sequences, unique_index
from mend.constraints.duplicate_rows import Asked, Found
from mend.constraints.proposals import Objection
from mend.constraints.unique_index import Making
from mend.diagnosis import Check, Prevention, Verdict
from mend.repairs.subject import Subject

#: What is asked, and when the answer is healthy; ``environment`` and ``sessions`` are asked as in every runbook.
QUESTIONS: Mapping[str, tuple[str, str]] = {
    "index": (
        "Does the unique index stand, and does it refuse rows already?",
        "There are 0 INVALID indexes, and 0 valid ones that rows contradict. One that is not there yet is healthy.",
    ),
    "groups": ("How many values does more than one row have?", "There are 0 groups."),
    "rows": ("Which rows share a key?", "There are 0."),
    "spelling": (
        "Which values differ by case only?",
        "That is what you want: with an index on lower() they would be duplicates.",
    ),
    "children": (
        "What points at the duplicates?",
        "0 rows point at a row that would go; it matters for merge and keep_newest.",
    ),
    "sequence": (
        "Is a sequence behind its rows?",
        "The next value of each sequence is past every value of its column.",
    ),
    "values": (
        "Would the new values fit?",
        "There are 0 objections: nothing is too long, no check refuses it, and nothing shares a key afterwards.",
    ),
}


@dataclass(frozen=True)
class Facts:
    """Everything that a plan is made from.

    ``examined``: the option whose values were looked at; ``objections``: what speaks against them, with the rows that prove it.
    """

    subject: Subject
    found: Found
    making: Making
    behind: sequences.Answer
    examined: str
    objections: tuple[Objection, ...]
    given: Mapping[str, Any]

    @property
    def groups(self) -> int:
        """How many values more than one row has."""
        return self.found.groups

    @property
    def corrupt(self) -> str:
        """The valid unique index that rows contradict, or ''."""
        standing, identity = self.found.standing, unique_index.index_of(self.subject.change).identity
        own = standing[standing["is_valid"].astype(bool) & (standing["identity"] == identity)]
        return str(own["identity"].iloc[0]) if len(own) and self.groups else ""

    @property
    def against(self) -> str:
        """The objections in words."""
        return "; ".join(one.says.rstrip(".") for one in self.objections)

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """What else the journal keeps: the operations of the revision that wants it."""
        return self.subject.facts.tables() if self.subject.facts else {}


def _check(name: str, bad: bool, says: str, asked: Asked) -> Check:
    """One answer; what could not be asked is not known."""
    question, healthy_when = QUESTIONS[name]
    if asked.why:
        return Check(
            name,
            question,
            "could_not_check",
            "Nobody can tell.",
            healthy_when,
            asked.frame,
            asked.sql,
            f"the question {asked.why}",
        )
    verdict: Verdict = "found" if bad else "healthy"
    return Check(name, question, verdict, says, healthy_when, asked.frame, asked.sql)


def index(facts: Facts) -> Check:
    """Does the unique index stand, and what does it do?"""
    standing, wanted = facts.found.standing, facts.subject
    identity = unique_index.index_of(wanted.change).identity
    own = standing[standing["identity"] == identity]
    moved = ", ".join(filter(None, standing["collations_moved"].unique()))
    if facts.corrupt:
        says = f"{facts.corrupt} is valid, and yet rows share its key: it is corrupt. Look with amcheck (bt_index_check, heapallindexed); mend the rows, then REINDEX it."
    elif own.empty:
        says = f"{wanted.identity} is wanted ({wanted.definition}), and is not there."
    else:
        says = f"{identity} is there, {'valid' if own['is_valid'].iloc[0] else 'INVALID'}: {own['effect'].iloc[0]}."
    if moved:
        says += f" The version of collation {moved} has changed since an index was built on it: REINDEX."
    invalid = not standing["is_valid"].astype(bool).all()
    return _check("index", bool(facts.corrupt) or invalid, says, Asked(standing, str(standing.attrs.get("sql", ""))))


def groups(facts: Facts) -> Check:
    """How many groups of rows share a key, and of which sizes?"""
    found, key = facts.found, ", ".join(facts.found.scene.wanted.keys)
    says = f"No two rows share {key}."
    if found.groups:
        says = f"{found.groups:,} values of {key} stand in {found.rows:,} rows; the largest group has {int(found.sizes.frame['size'].max()):,}."
    return _check("groups", bool(found.groups), says, found.sizes)


def rows(facts: Facts) -> Check:
    """The largest groups, the row that stays first."""
    found = facts.found
    order = found.scene.ranking.sorting().replace("t.", "")
    says = (
        f"The largest {len(found.sample.frame)} groups. The row that stays comes first, by {order}."
        if found.groups
        else "None do."
    )
    return _check("rows", bool(found.groups), says, found.sample)


def spelling(facts: Facts) -> Check:
    """What the wanted key lets stand and a reader might not."""
    asked = facts.found.folded
    count = len(asked.frame)
    told = f"{'At least ' if count >= duplicates.SAMPLE else ''}{count} values have several spellings. The wanted key lets them stand, and nothing here touches them."
    return _check("spelling", False, told if count else "None does, or the wanted key minds no case.", asked)


def children(facts: Facts) -> Check:
    """How many rows of other tables point at rows that would go?"""
    count = sum(facts.found.scene.pointing.values())
    says = (
        f"{count:,} rows point at rows that are not the first of their group."
        if count
        else "Nothing points at a row that would go."
    )
    return _check("children", bool(count), says, facts.found.children)


def sequence(behind: sequences.Answer) -> Check:
    """The look-alike: no row is wrong, only the next number is taken."""
    told = "; ".join(
        f"the next value of {one.sequence} is {one.next_value:,}, and {one.relation}.{one.column} has {one.furthest:,} already"
        for one in behind.behind
    )
    why = "" if told else behind.why
    sql = str(behind.frame.attrs.get("sql", ""))
    return _check("sequence", bool(told), f"Yes: {told}." if told else "No.", Asked(behind.frame, sql, why))


def values(facts: Facts) -> Check:
    """What speaks against what would be written?"""
    if not facts.groups:
        return _check("values", False, "There is nothing to write.", Asked(pd.DataFrame(), ""))
    if why_not := facts.found.scene.why_not(facts.examined):
        return _check("values", True, f"{facts.examined} is not possible: {why_not}.", Asked(pd.DataFrame(), ""))
    if not facts.objections:
        return _check("values", False, f"All values of {facts.examined} fit.", Asked(pd.DataFrame(), ""))
    proof = pd.concat([one.frame.assign(objection=one.says) for one in facts.objections], ignore_index=True)
    return _check("values", True, f"Those of {facts.examined} do not: {facts.against}.", Asked(proof, ""))


def nothing_wanted(behind: sequences.Answer) -> tuple[Check, ...]:
    """The answers where no key is wanted: only a sequence can be wrong."""
    says, none = "No pending revision makes a unique key, and none was named.", Asked(pd.DataFrame(), "")
    asked = {name: _check(name, False, says, none) for name in QUESTIONS}
    others = [
        Check(name, question, "healthy", says, "It is asked only where a key is wanted.")
        for name, question in (
            ("environment", "Does env.py lead to this database?"),
            ("sessions", "Is a migration still running, or a session in the way?"),
        )
    ]
    return (*(asked | {"sequence": sequence(behind)}).values(), *others)


def preventions(facts: Facts) -> tuple[Prevention, ...]:
    """What would have stopped it."""
    index_ = unique_index.index_of(facts.subject.change)
    found = [
        Prevention(
            "Give the index a revision of its own, built without blocking writes, before the revision and the code that rely on it: "
            f"with op.get_context().autocommit_block(): op.execute({index_.build()!r}). For a constraint, the next revision then runs "
            "ALTER TABLE ... ADD CONSTRAINT ... UNIQUE USING INDEX, which takes a moment."
        ),
        Prevention(
            "Stop new duplicates before the old ones are mended: in the application, or by a partial unique index over the rows to come."
        ),
    ]
    if len(facts.found.folded.frame):
        found.append(
            Prevention(
                "Some values differ by case only. If a reader takes them for one, make them one: a unique index on lower(), or the type citext."
            )
        )
    if facts.behind.behind:
        found.append(
            Prevention("Who loads rows with their keys moves the sequence in the same transaction: select setval(...).")
        )
    return tuple(found)

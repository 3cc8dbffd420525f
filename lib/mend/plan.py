"""Step and Plan: frozen values, no I/O.

A plan is an ordered tuple of steps bound to the evidence by a digest.  Each step says what it does in one sentence, holds the
exact SQL, the locks, what it expects to find and to leave, and the steps that take it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from mend.journal import canonical, sha256

DIGEST_LENGTH = 16  # hex digits: 64 bits, short enough to be read aloud on a call

StepKind = Literal[
    "sql", "upgrade", "file", "invalid_index", "backfill", "restore", "end_backend", "rollback_prepared", "wait", "recover"
]  # fmt: skip


@dataclass(frozen=True)
class Lock:
    """A relation lock that a statement takes; mode in PostgreSQL's words, e.g. ``ACCESS EXCLUSIVE``."""

    relation: str
    mode: str
    note: str = ""


@dataclass(frozen=True)
class Statement:
    """One statement to send.  ``exactly`` or ``at_most``: rows it may affect; more, or other, rolls the step back."""

    sql: str
    exactly: int | None = None
    at_most: int | None = None


@dataclass(frozen=True)
class Expect:
    """One catalog object as it must be; ``definition`` None means absent."""

    kind: str
    identity: str
    definition: str | None


@dataclass(frozen=True)
class Step:
    """One unit of work: a transaction, or one statement that cannot run in one.

    ``before``: what must stand for the step to start; ``after``: what stands when it is done. After a crash, a step that
    cannot be resolved by its transaction id is resolved by ``after``; ``restart`` clears what a half-done one left.  ``undo`` takes
    it back, in the order given; where it is empty, ``irreversible`` says why.
    """

    says: str
    statements: tuple[Statement, ...]
    kind: StepKind = "sql"
    transactional: bool = True
    retryable: bool = True
    locks: tuple[Lock, ...] = ()
    rewrite: bool | None = False
    rows_expected: int | None = None
    estimated_s: float | None = None
    before: tuple[Expect, ...] = ()
    after: tuple[Expect, ...] = ()
    restart: tuple[Statement, ...] = ()
    undo: tuple[Step, ...] = ()
    irreversible: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def sql(self) -> str:
        """The statements as one reviewable text."""
        return "\n".join(s.sql.rstrip().rstrip(";") + ";" for s in self.statements)

    def reversible(self) -> bool:
        """Whether an undo is known."""
        return bool(self.undo) or not self.irreversible


@dataclass(frozen=True)
class Choice:
    """One option of the runbook: what it does, what it costs, and why it is not possible if it is not."""

    option: str
    says: str
    costs: str
    possible: bool = True
    why_not: str = ""


@dataclass(frozen=True)
class Plan:
    """What will be done to one database, and on what evidence."""

    slug: str
    target: Mapping[str, Any]
    evidence: Mapping[str, Any]
    chosen: str
    options: tuple[Choice, ...] = ()
    steps: tuple[Step, ...] = ()
    next: str = ""
    warnings: tuple[str, ...] = ()

    def digest(self) -> str:
        """Fingerprint of the steps, the target's identity and the evidence: what an approver approves."""
        body = {"slug": self.slug, "target": self.target, "evidence": self.evidence, "chosen": self.chosen}
        return sha256(canonical(body | {"steps": [_reviewed(asdict(step)) for step in self.steps]}))[:DIGEST_LENGTH]

    def as_record(self) -> dict[str, Any]:
        """Plain JSON values, with the digest."""
        return {"digest": self.digest()} | asdict(self)

    def irreversible(self, done: frozenset[int]) -> tuple[str, ...]:
        """Why each of those steps cannot be taken back, for those that cannot."""
        return tuple(
            f"step {n + 1} ({self.steps[n].says}): {self.steps[n].irreversible}"
            for n in sorted(done)
            if not self.steps[n].reversible()
        )

    def undone(self, done: frozenset[int], *, evidence: Mapping[str, Any]) -> Plan:
        """The plan that takes those steps back, last first."""
        steps = tuple(back for n in sorted(done, reverse=True) for back in self.steps[n].undo)
        return replace(self, steps=steps, chosen="undo", options=(), evidence=evidence, warnings=(), next="")


def _reviewed(step: dict[str, Any]) -> dict[str, Any]:
    """A step without its estimates, nor those of its undo: live tables move, and a row more must not make a plan stale (ceilings count)."""
    kept = {key: value for key, value in step.items() if key not in ("rows_expected", "estimated_s")}
    return kept | {"undo": [_reviewed(back) for back in step["undo"]]}


def from_record(record: Mapping[str, Any]) -> Plan:
    """The plan that ``as_record`` wrote.  Raises ValueError if its digest is not that of its content."""
    plan = Plan(
        slug=record["slug"],
        target=record["target"],
        evidence=record["evidence"],
        chosen=record["chosen"],
        options=tuple(Choice(**choice) for choice in record["options"]),
        steps=tuple(_step(step) for step in record["steps"]),
        next=record["next"],
        warnings=tuple(record["warnings"]),
    )
    if plan.digest() != record["digest"]:
        raise ValueError("the plan's digest is not that of its content")
    return plan


def _step(record: Mapping[str, Any]) -> Step:
    parts = {
        "statements": tuple(Statement(**s) for s in record["statements"]),
        "locks": tuple(Lock(**lock) for lock in record["locks"]),
        "before": tuple(Expect(**e) for e in record["before"]),
        "after": tuple(Expect(**e) for e in record["after"]),
        "restart": tuple(Statement(**s) for s in record["restart"]),
        "undo": tuple(_step(s) for s in record["undo"]),
    }
    return Step(**{**record, **parts})


def what_changed(approved: Plan, fresh: Plan) -> list[str]:
    """One line per difference between two plans, in words: target, evidence, then steps; none only where the digests agree."""
    lines = [f"runbook: {approved.slug} -> {fresh.slug}"] if approved.slug != fresh.slug else []
    lines += [f"target {line}" for line in _of_mappings(approved.target, fresh.target)]
    lines += differences(approved.evidence, fresh.evidence)
    if not lines and approved.chosen != fresh.chosen:
        lines.append(f"option: {approved.chosen} -> {fresh.chosen}")
    if not lines and approved.digest() != fresh.digest():
        lines += _step_differences(approved, fresh)
    return lines


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line per difference between two sets of evidence; the subjects that differ least come first."""
    found = [_differences(subject, old, new) for subject in sorted({*old, *new})]
    return [line for lines in sorted(found, key=len) for line in _at_most(lines)]


def _at_most(lines: list[str], *, most: int = 15) -> list[str]:
    """The first lines, and how many more there are; plan.json of both runs holds them all."""
    subject = lines[0].split(":", 1)[0] if lines else ""
    return lines if len(lines) <= most else [*lines[:most], f"{subject}: and {len(lines) - most} more"]


def _same(old: Any, new: Any) -> bool:
    """Whether a digest sees no difference: a plan read from its record holds lists where a fresh one holds tuples."""
    return canonical(old) == canonical(new)


def _differences(subject: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line per difference in one subject of the evidence: by key, where it has keys on both sides."""
    before, after = old.get(subject), new.get(subject)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        if subject == "objects" and old.get("revision") != new.get("revision"):
            common = before.keys() & after.keys()  # another revision is about other tables: those are not gone
            before, after = {k: before[k] for k in common}, {k: after[k] for k in common}
        return [f"{subject}: {line}" for line in _of_mappings(before, after)]
    return _of_mappings(*({subject: values[subject]} if subject in values else {} for values in (old, new)))


def _of_mappings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line per key whose value differs, or that only one of them has."""
    keys = sorted({*old, *new}, key=str)
    changed = (key for key in keys if (key in old) != (key in new) or not _same(old.get(key), new.get(key)))
    return [f"{key}: {_told(old, key)} -> {_told(new, key)}" for key in changed]


def _told(values: Mapping[str, Any], key: str) -> str:
    return str(values[key]) if key in values else "(absent)"


def _step_differences(approved: Plan, fresh: Plan) -> list[str]:
    """The steps whose SQL differs; where it is the same, the parts of a step that do."""
    old, new = ([_reviewed(asdict(step)) for step in plan.steps] for plan in (approved, fresh))
    if len(old) != len(new):
        return [f"{len(old)} steps -> {len(new)} steps"]
    lines = []
    for n, (a, b) in enumerate(zip(old, new, strict=True)):
        sql = approved.steps[n].sql(), fresh.steps[n].sql()
        if sql[0] != sql[1]:
            lines.append(f"step {n + 1}: {sql[0]!r} -> {sql[1]!r}")
        elif parts := [key for key in a if not _same(a[key], b[key])]:
            lines.append(f"step {n + 1} ({approved.steps[n].says}): its {', '.join(parts)} differ")
    return lines

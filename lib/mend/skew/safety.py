"""What each pending change does to an application that does not know it: safe, not safe, or it depends.  Pure.

Read from the catalog changes that replay recorded, so raw SQL counts as much as Alembic's own operations.  ``phase`` is where a change
belongs when it is made in three: expand (nobody notices), backfill (rows), contract (only the new application is left).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mend.change.renames import as_rename
from mend.database import catalog, names
from mend.database.catalog import Change
from mend.repairs import halfway
from mend.replays.expected import Step as Operation
from mend.replays.recording import Statement

Safe = Literal["yes", "no", "depends"]
Phase = Literal["expand", "backfill", "contract"]
Facets = Mapping[tuple[str, str], str]
COLUMNS = ["revision", "index", "operation", "object", "safe", "why", "phase"]


@dataclass(frozen=True)
class Judged:
    """One effect of one statement on the application that runs now.  ``object``: kind and identity, in words."""

    statement: Statement
    object: str
    safe: Safe
    why: str
    phase: Phase

    def row(self) -> tuple[str, int, str, str, str, str, str]:
        """As ``COLUMNS``."""
        return (
            self.statement.revision,
            self.statement.operation,
            self.statement.says,
            self.object,
            self.safe,
            self.why,
            self.phase,
        )


def judged(operations: Iterable[Operation], state: Facets) -> tuple[Judged, ...]:
    """Every effect of these operations, in order; ``state``: the catalog before the first."""
    now = dict(state)
    new: set[str] = set()  # tables that the application cannot know yet
    found: list[Judged] = []
    for statement in (one for operation in operations for one in operation.statements):
        new |= {
            c.identity
            for c in statement.changes
            if c.kind in _RELATIONS and c.before is None and not as_rename(statement.changes)
        }
        after = {**now, **{(c.kind, c.identity): c.after for c in statement.changes if c.after is not None}}
        for c in statement.changes:
            if c.after is None:
                after.pop((c.kind, c.identity), None)
        found += _of_statement(statement, after, new)
        now = after
    return tuple(found)


_RELATIONS = ("table", "foreign_table", "view", "matview", "sequence")


def _of_statement(statement: Statement, after: Facets, new: set[str]) -> list[Judged]:
    def judged(what: str, safe: Safe, why: str, phase: Phase) -> Judged:
        return Judged(statement, what, safe, why, phase)

    if not statement.changes:
        return (
            [
                judged(
                    "rows", "depends", "it changes rows: what the application reads is other than it wrote", "backfill"
                )
            ]
            if statement.data
            else []
        )
    if renamed := renamed_of(statement.changes):
        old, new_ = renamed
        if old.kind in ("index", "constraint", "trigger", "policy", "rule"):
            return [
                judged(
                    f"{old.kind} {old.identity}",
                    "yes",
                    "a rename that only ON CONFLICT ON CONSTRAINT can see",
                    "expand",
                )
            ]
        return [
            judged(
                f"{old.kind} {old.identity}",
                "no",
                f"it is called {names.last(new_.identity)} then: statements that say {names.last(old.identity)} fail",
                "contract",
            )
        ]
    about = [c for c in statement.changes if c.kind not in ("comment", "owner", "grant", "default_privilege")]
    known = [c for c in about if halfway.relation_of(c) not in new and c.identity not in new]
    if about and not known:
        return [
            judged(
                ", ".join(dict.fromkeys(halfway.relation_of(c) or c.identity for c in about)),
                "yes",
                "it is new, so nobody uses it",
                "expand",
            )
        ]
    effects = [(c, *_effect(c, statement.changes, after)) for c in known]
    return [judged(f"{c.kind} {c.identity}", safe, why, phase) for c, safe, why, phase in effects if why]


def renamed_of(changes: Sequence[Change]) -> tuple[Change, Change] | None:
    """The object as it was and as it is called afterwards, where one RENAME explains all that changed."""
    if not as_rename(changes):
        return None
    text = as_rename(changes)[0]
    gone = [c for c in changes if c.after is None]
    come = [c for c in changes if c.before is None]
    old = next((c for c in gone if f" {names.last(names.bare(c.identity))} " in f"{text} " or c.identity in text), None)
    new = next(
        (c for c in come if old and c.kind == old.kind and text.endswith(f" to {names.last(names.bare(c.identity))}")),
        None,
    )
    return (old, new) if old and new else None


Effect = tuple[Safe, str, Phase]
_NOTHING: Effect = ("yes", "", "expand")


def _effect(c: Change, together: Sequence[Change], after: Facets) -> Effect:
    """What one change means for an application that does not know it."""
    rule = _RULES.get(c.kind)
    return (
        rule(c, together, after)
        if rule
        else _NOTHING
        if c.after is not None
        else ("depends", f"the {c.kind} is gone", "contract")
    )


def _relation(c: Change, _: Sequence[Change], __: Facets) -> Effect:
    if c.after is None:
        return "no", "it is gone: statements that name it fail (42P01)", "contract"
    if c.before is None:
        return "yes", "it is new, so nobody uses it", "expand"
    return "depends", "it is another one: its columns or rows may differ", "contract"


def _column(c: Change, together: Sequence[Change], after: Facets) -> Effect:
    if c.after is None:
        return "no", "it is gone: statements that name it fail (42703), and SELECT * gives one column less", "contract"
    if c.before is not None:
        if _wider(c.before, c.after):
            return "yes", f"{c.before} becomes {c.after}, which takes all that it took", "expand"
        return (
            "depends",
            f"its type is {c.after} instead of {c.before}: what is written may not fit, what is read is of another type",
            "contract",
        )
    if ("not_null", c.identity) in after and not _filled(c.identity, c.after, after):
        return "no", "NOT NULL without a default: an INSERT that does not know it fails (23502)", "contract"
    return "yes", "a new column that an INSERT may leave out", "expand"


def _filled(identity: str, definition: str, after: Facets) -> bool:
    return ("default", identity) in after or " generated " in f" {definition} "


def _wider(before: str, after: str) -> bool:
    """Whether the new type takes every text of the old one, without the table being written anew."""
    limits = [text.removeprefix("character varying(").rstrip(")") for text in (before, after)]
    if before.startswith("character varying(") and after in ("text", "character varying"):
        return True
    return all(limit.isdigit() for limit in limits) and int(limits[0]) <= int(limits[1])


def _not_null(c: Change, together: Sequence[Change], after: Facets) -> Effect:
    if c.after is None:
        return "yes", "a NULL may be read where there was none before", "expand"
    if any(one.kind == "column" and one.identity == c.identity and one.before is None for one in together):
        return _NOTHING  # said of the new column
    if ("default", c.identity) in after:
        return (
            "depends",
            "an INSERT or UPDATE that writes NULL fails (23502); one that leaves it out gets the default",
            "contract",
        )
    return "no", "an INSERT that leaves it out, or writes NULL, fails (23502)", "contract"


def _default(c: Change, together: Sequence[Change], after: Facets) -> Effect:
    if any(one.kind == "column" and one.identity == c.identity for one in together):
        return _NOTHING
    if c.after is None and ("not_null", c.identity) in after:
        return "no", "an INSERT that leaves it out fails (23502): it is NOT NULL, and its default is gone", "contract"
    return "yes", "only what an INSERT leaves out is another value", "expand"


def _constraint(c: Change, _: Sequence[Change], after: Facets) -> Effect:
    if c.after is None:
        unique = (c.before or "").startswith(("UNIQUE", "PRIMARY KEY"))
        return (
            ("depends", "INSERT ... ON CONFLICT by its columns fails (42P10)", "contract")
            if unique
            else ("yes", "one rule less", "expand")
        )
    return "depends", "rows that the application writes may break it", "contract"


def _index(c: Change, _: Sequence[Change], __: Facets) -> Effect:
    definition = catalog.index_state(c.after or c.before or "")[0]
    unique = definition.startswith("CREATE UNIQUE")
    if c.after is None:
        return (
            ("depends", "INSERT ... ON CONFLICT by its columns fails (42P10)", "contract")
            if unique
            else ("depends", "queries that used it are slower", "contract")
        )
    return (
        ("depends", "rows that the application writes may be twice", "contract")
        if unique
        else ("yes", "an index more", "expand")
    )


def _enum(c: Change, _: Sequence[Change], __: Facets) -> Effect:
    if c.after is None:
        return "no", "the type is gone: casts to it fail (42704)", "contract"
    if c.before is None:
        return "yes", "it is new, so nobody uses it", "expand"
    lost = set(names.items(c.before)) - set(names.items(c.after))
    if lost:
        return "no", "a value is gone: writing it fails (22P02)", "contract"
    return "depends", "an application may read a value that it does not know", "expand"


def _behaviour(c: Change, _: Sequence[Change], __: Facets) -> Effect:
    if c.after is None and c.kind == "function":
        return "no", "it is gone: calls of it fail (42883)", "contract"
    return (
        "depends",
        f"the {c.kind} {'changes what happens' if c.after else 'is gone'}",
        "expand" if c.before is None else "contract",
    )


_RULES = {
    **dict.fromkeys(_RELATIONS, _relation), "column": _column, "not_null": _not_null, "default": _default, "constraint": _constraint,
    "index": _index, "enum": _enum, "function": _behaviour, "trigger": _behaviour, "policy": _behaviour, "row_security": _behaviour,
    "rule": _behaviour,
}  # fmt: skip

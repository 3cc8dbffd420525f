"""From catalog changes to steps: transactions, locks, expectations and the way back.  Pure.

Used by every mode that makes or takes back schema objects.  A `Wanted` is one statement with the changes it is known to make.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import pandas as pd

from mend import ddl, kept, locks, names
from mend.catalog import COLUMNS, Change, index_state
from mend.errors import NotInvertible
from mend.plan import Expect, Lock, Statement, Step

Facets = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class Wanted:
    """One statement to run, what it changes in the catalog, and what it is called.

    ``settings``: SET statements that must hold when it runs, such as the search_path of the session that it was written for.
    ``at_most``: rows it may change.
    """

    sql: str
    says: str
    changes: tuple[Change, ...] = ()
    changes_rows: bool = False
    settings: tuple[str, ...] = ()
    at_most: int | None = None

    def texts(self, already: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The settings, unless they hold already, then the statement."""
        return (self.sql,) if self.settings == already else (*self.settings, self.sql)


@dataclass(frozen=True)
class Keeper:
    """Where the content is kept that a way back would lose, and the primary keys that tell its rows apart."""

    schema: str
    key: str
    primary_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def primary_keys(live: Facets) -> dict[str, tuple[str, ...]]:
    """Quoted primary key columns by table, from a snapshot."""
    found = {}
    for (kind, identity), definition in live.items():
        if kind == "constraint" and (match := re.match(r"PRIMARY KEY \((.*?)\)", definition)):
            found[names.parent(identity)] = tuple(part.strip() for part in match[1].split(","))
    return found


def make(wanted: Sequence[Wanted], *, live: Facets, keeper: Keeper) -> tuple[Step, ...]:
    """Steps that run the statements in order: one transaction for each run of neighbours that can share one."""
    steps = []
    for transactional, group in groupby(wanted, key=lambda w: locks.runs_in_transaction(w.sql)):
        members = list(group)
        steps += [_together(members, live, keeper)] if transactional else [_alone(w, live) for w in members]
    return tuple(steps)


def _together(wanted: Sequence[Wanted], live: Facets, keeper: Keeper) -> Step:
    """One transaction, and its way back in one transaction."""
    texts = [text for w, previous in zip(wanted, [None, *wanted], strict=False) for text in w.texts(previous.settings if previous else ())]
    ceilings = {w.sql: w.at_most for w in wanted if w.at_most is not None}
    step = _transaction("; ".join(w.says for w in wanted), texts, [w.changes for w in wanted], live, keeper)
    made = {change.identity for w in wanted for change in w.changes if change.before is None}
    step = replace(step, statements=tuple(replace(s, at_most=ceilings.get(s.sql)) for s in step.statements))
    rows = [w.says for w in wanted if w.changes_rows and not _goes_along(w.sql, made)]
    if rows:
        reason = f"it changes rows by the project's own SQL ({'; '.join(rows)}), whose old values are not kept"
        return replace(step, undo=(), irreversible=reason)
    return step


_UPDATE = re.compile(r"^\s*UPDATE\s+(?:ONLY\s+)?(?P<table>[\w.\"]+)\s+SET\s+(?P<column>[\w\"]+)\s*=(?P<rest>[^,]*)$", re.IGNORECASE | re.DOTALL)
_INSERT = re.compile(r"^\s*INSERT\s+INTO\s+(?P<table>[\w.\"]+)[\s(]", re.IGNORECASE)


def _goes_along(sql: str, made: set[str]) -> bool:
    """Whether a row change is only about what the same step makes, so that the way back takes it along.

    Recognised: an UPDATE of one column, an INSERT into one table. Anything else counts as not.
    """
    if update := _UPDATE.match(sql):
        table = update["table"] if "." in update["table"] else f"public.{update['table']}"
        return f"{table}.{update['column']}" in made or table in made
    if insert := _INSERT.match(sql):
        return (insert["table"] if "." in insert["table"] else f"public.{insert['table']}") in made
    return False


def _transaction(says: str, texts: Sequence[str], parts: Sequence[Sequence[Change]], live: Facets, keeper: Keeper, *, again: Sequence[str] = ()) -> Step:
    """The statements in one transaction, after those that keep the content they would lose; undo puts it back.

    ``parts``: what changes, statement by statement, because a rename is recognised only on its own.
    """
    before, after = _expects(net(change for part in parts for change in part), live)
    try:
        keepings = [k for part in parts for k in _keepings([c.reversed() for c in part], keeper, "forth")]
        undo, irreversible = _way_back(parts, before, after, keeper, keepings, again, _after(live, parts)), ""
    except NotInvertible as error:
        keepings, undo, irreversible = [], (), error.message
    statements = (*(s for keeping in keepings for s in keeping.keep), *(Statement(text) for text in texts))
    return Step(
        says=says,
        statements=statements,
        locks=_locks(statements),
        rewrite=_worst(locks.rewrites(text) for text in texts),
        before=before,
        after=after,
        undo=undo,
        irreversible=irreversible,
    )


def _way_back(parts: Sequence[Sequence[Change]], before: tuple[Expect, ...], after: tuple[Expect, ...], keeper: Keeper, keepings: Sequence[kept.Keeping], again: Sequence[str], now: pd.DataFrame) -> tuple[Step, ...]:
    """Objects back, then content, then the rules that content must satisfy; what this loses in turn is kept first.

    Raises: NotInvertible.
    """
    if not any(parts):
        return ()
    texts = again or [text for part in reversed(parts) for text in ddl.inverse_of(part, live=now)]
    rules = [text for text in texts if _RULE.search(text)] if keepings else []
    statements = (
        *(s for part in parts for keeping in _keepings(part, keeper, "back") for s in keeping.keep),
        *(Statement(text) for text in texts if text not in rules),
        *(s for keeping in keepings for s in keeping.restore),
        *(Statement(text) for text in rules),
    )
    said = ", ".join(dict.fromkeys(change.identity for part in parts for change in part))
    return (Step(says=f"Take back {said}", statements=statements, locks=_locks(statements), before=after, after=before),)


def _after(live: Facets, parts: Sequence[Sequence[Change]]) -> pd.DataFrame:
    """The catalog as it will be: what hangs on a view that must be made anew is taken from it."""
    now = dict(live)
    for change in (change for part in parts for change in part):
        now.pop((change.kind, change.identity), None)
        if change.after is not None:
            now[change.kind, change.identity] = change.after
    return pd.DataFrame([(*key, text) for key, text in now.items()], columns=list(COLUMNS), dtype="str")


def _alone(wanted: Wanted, live: Facets) -> Step:
    """A statement outside any transaction; an index that it leaves half built is dropped before it is tried again."""
    before, after = _expects(net(wanted.changes), live)
    index = next((c for c in wanted.changes if c.kind == "index"), None)
    drop = (Statement(f"drop index concurrently if exists {index.identity}"),) if index and index.after else ()
    back = Step(
        says=f"Drop index {index.identity}" if index else "",
        statements=drop,
        transactional=False,
        retryable=False,
        locks=(Lock(ddl.index_table(index.after or ""), "SHARE UPDATE EXCLUSIVE"),) if index else (),
        before=after,
        after=before,
        restart=drop,
    )
    return Step(
        says=wanted.says,
        statements=tuple(Statement(re.sub(r"(?i)^set local ", "set ", text)) for text in wanted.texts()),
        transactional=False,
        retryable=False,  # a failed try leaves an INVALID index, and the next one would meet it (facts 1.5)
        locks=tuple(locks.locks_of(wanted.sql)),
        before=before,
        after=after,
        restart=drop,
        undo=(back,) if drop else (),
        irreversible="" if drop else "it cannot run in a transaction, and no inverse is known",
    )


def drop_index(identity: str, definition: str, *, says: str) -> Step:
    """Drop an index without blocking; undo builds it again, and leaves it INVALID if that is how it was found."""
    valid, state = index_state(definition)
    table = ddl.index_table(definition)
    build = re.sub(r"^CREATE (UNIQUE )?INDEX ", r"CREATE \1INDEX CONCURRENTLY ", valid)
    gone, there = (Expect("index", identity, None),), (Expect("index", identity, definition),)
    drop = (Statement(f"drop index concurrently if exists {identity}"),)
    back = Step(
        says=f"Build index {identity} again" + (", and leave it INVALID, as it was found" if state else ""),
        kind="invalid_index" if state else "sql",
        statements=(Statement(build),),
        transactional=False,
        retryable=False,
        locks=(Lock(table, "SHARE UPDATE EXCLUSIVE"),),
        before=gone,
        after=there,
        restart=drop,
        arguments={"table": table, "ready": state == " INVALID, ready"},
    )
    return Step(
        says=says,
        statements=drop,
        transactional=False,
        retryable=False,
        locks=(Lock(table, "SHARE UPDATE EXCLUSIVE"),),
        before=there,
        after=gone,
        restart=drop,
        undo=(back,),
    )


def take_back(changes: Sequence[Change], *, says: str, again: Sequence[str], live: Facets, keeper: Keeper) -> tuple[Step, ...]:
    """Steps that undo changes which are in the database: indexes first, without blocking, then the rest in one transaction.

    ``again``: the statements that made them, for the way back; what PostgreSQL prints of an expression is not always what it
    was made from.

    Raises: NotInvertible naming what no SQL is known for.
    """
    made = {c.identity for c in changes if c.kind == "table" and c.before is None}
    indexes = [c for c in changes if c.kind == "index" and c.before is None and ddl.index_table(c.after or "") not in made]
    rest = tuple(c for c in changes if c not in indexes)
    steps = [drop_index(c.identity, live[c.kind, c.identity], says=f"Drop index {c.identity}") for c in indexes]
    if rest:
        steps.append(_transaction(says, ddl.inverse_of(rest, live=_after(live, ())), [[c.reversed() for c in rest]], live, keeper, again=again))
    return tuple(steps)


def net(changes: Iterable[Change]) -> tuple[Change, ...]:
    """The changes as one: first state to last state of every object, without those that come back to where they were."""
    first: dict[tuple[str, str], Change] = {}
    for change in changes:
        key = (change.kind, change.identity)
        first[key] = Change(*key, first[key].before if key in first else change.before, change.after)
    return tuple(c for c in first.values() if c.before != c.after)


def _expects(changes: Sequence[Change], live: Facets) -> tuple[tuple[Expect, ...], tuple[Expect, ...]]:
    """What must stand before (what is live now), and what must stand after."""
    before = tuple(Expect(c.kind, c.identity, live.get((c.kind, c.identity))) for c in changes)
    return before, tuple(Expect(c.kind, c.identity, c.after) for c in changes)


_RULE = re.compile(r"SET NOT NULL|ADD CONSTRAINT|CREATE UNIQUE INDEX|VALIDATE CONSTRAINT|CREATE TRIGGER", re.IGNORECASE)


def _keepings(changes: Sequence[Change], keeper: Keeper, purpose: str) -> list[kept.Keeping]:
    """How the content is kept that the inverse of these changes loses.  Raises: NotInvertible without a primary key."""
    tables = {c.identity for c in changes if c.kind == "table"}
    found = []
    for lost in ddl.losses(changes):
        table = lost if lost in tables else names.parent(lost)
        if lost in tables:
            found.append(kept.table(keeper.schema, keeper.key + purpose, lost))
        elif table in keeper.primary_keys:
            found.append(kept.column(keeper.schema, keeper.key + purpose, lost, keeper.primary_keys[table]))
        else:
            raise NotInvertible(f"{table} has no primary key, so the values of {lost} could not be kept")
    return found


def _locks(statements: Iterable[Statement]) -> tuple[Lock, ...]:
    """One lock per relation: the strongest that any of the statements takes."""
    best: dict[str, Lock] = {}
    for lock in (lock for statement in statements for lock in locks.locks_of(statement.sql)):
        if lock.relation not in best or _MODES.index(lock.mode) > _MODES.index(best[lock.relation].mode):
            best[lock.relation] = lock
    return tuple(best.values())


_MODES = ("ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE")


def _worst(answers: Iterable[bool | None]) -> bool | None:
    """True if any rewrites; None if that is not known for one; else False."""
    seen = set(answers)
    return True if True in seen else None if None in seen else False

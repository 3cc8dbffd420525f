"""From catalog changes to steps: transactions, locks, expectations and the way back.  Pure.

Used by every mode that makes or takes back schema objects.  A `Wanted` is one statement with the changes it is known to make.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import pandas as pd

from mend.change import ddl, granted, locks
from mend.change.facets_of_tables import over_partitions
from mend.change.kept import Facets, Keeper, Keeping, keepings, primary_keys
from mend.database import names, sqltext
from mend.database.catalog import COLUMNS, Change, index_state
from mend.errors import NotInvertible
from mend.plan import Expect, Lock, Statement, Step

__all__ = [
    "Facets",
    "Keeper",
    "Wanted",
    "drop_index",
    "frame",
    "goes_along",
    "make",
    "moved",
    "net",
    "primary_keys",
    "take_back",
    "transaction",
]


@dataclass(frozen=True)
class Wanted:
    """One statement to run, what it changes in the catalog, and what it is called.

    ``settings``: SET statements that must hold when it runs, such as the search_path of the session that it was written for.
    ``at_most``: rows it may change.  ``segment``: the author's transaction, of those that commit together.  ``keeps``: how the rows that it changes are kept.
    """

    sql: str
    says: str
    changes: tuple[Change, ...] = ()
    changes_rows: bool = False
    settings: tuple[str, ...] = ()
    at_most: int | None = None
    segment: int = 0
    keeps: tuple[Keeping, ...] = ()


def make(wanted: Sequence[Wanted], *, live: Facets, keeper: Keeper) -> tuple[Step, ...]:
    """Steps that run the statements in order: one transaction for each run of neighbours that can share one."""
    found: list[Step] = []
    for together, group in groupby(enumerate(wanted), key=lambda one: _shares(*one)):
        members = [one for _, one in group]
        own = replace(keeper, key=f"{keeper.key}{len(found)}")
        for run in [members] if together is not None else [[one] for one in members]:
            found.append(_together(run, live, own) if together is not None else _alone(run[0], live))
            live = moved(live, (change for one in run for change in one.changes))
    return tuple(found)


def _shares(n: int, wanted: Wanted) -> tuple[int, int] | None:
    """With which neighbours a statement shares a transaction; None: with nobody, for it runs outside of any.

    The author's transactions stay apart: NOT VALID and VALIDATE in one would hold the strong locks for the whole scan.  A new
    value of an enum cannot be used by the transaction that adds it (55P04), so that one is committed first.
    """
    if not locks.runs_in_transaction(wanted.sql):
        return None
    return (n, 0) if _ADDS_VALUE.match(wanted.sql) else (-1, wanted.segment)


_ADDS_VALUE = re.compile(r"\s*alter\s+type\s.*\sadd\s+value\s", re.IGNORECASE | re.DOTALL)


def moved(state: Facets, changes: Iterable[Change]) -> dict[tuple[str, str], str]:
    """The catalog after these changes."""
    now = dict(state)
    for change in changes:
        now.pop((change.kind, change.identity), None)
        if change.after is not None:
            now[change.kind, change.identity] = change.after
    return now


def _together(wanted: Sequence[Wanted], live: Facets, keeper: Keeper) -> Step:
    """One transaction, and its way back in one transaction."""
    ceilings = {w.sql: w.at_most for w in wanted if w.at_most is not None}
    pairs = [(_texts(w, previous), w.changes) for w, previous in zip(wanted, [None, *wanted], strict=False)]
    step = transaction("; ".join(w.says for w in wanted), pairs, live, keeper, own=[w.keeps for w in wanted])
    made = {change.identity for w in wanted for change in w.changes if change.before is None}
    step = replace(step, statements=tuple(replace(s, at_most=ceilings.get(s.sql)) for s in step.statements))
    rows = [w.says for w in wanted if w.changes_rows and not w.keeps and not goes_along(w.sql, made)]
    if rows:
        reason = f"it changes rows by the project's own SQL ({'; '.join(rows)}), whose old values are not kept"
        return replace(step, undo=(), irreversible=reason)
    return step


def _texts(wanted: Wanted, previous: Wanted | None) -> tuple[str, ...]:
    """The statement with what must be set for it, unless that holds already; what held for the one before ends."""
    before = previous.settings if previous else ()
    if before == wanted.settings:
        return (wanted.sql,)
    ends = dict.fromkeys(
        re.sub(r"^(?i:set local) ([\w.]+).*", r"set local \1 to default", text, flags=re.DOTALL) for text in before
    )
    return (*ends, *wanted.settings, wanted.sql)


_UPDATE = re.compile(
    r"^\s*UPDATE\s+(?:ONLY\s+)?(?P<table>[\w.\"]+)\s+SET\s+(?P<column>[\w\"]+)\s*=(?P<rest>[^,]*)$",
    re.IGNORECASE | re.DOTALL,
)
_INSERT = re.compile(r"^\s*INSERT\s+INTO\s+(?P<table>[\w.\"]+)[\s(]", re.IGNORECASE)


def goes_along(sql: str, made: set[str]) -> bool:
    """Whether a row change is only about what the same step makes, so that the way back takes it along.

    Recognised: an UPDATE of one column, an INSERT into one table, and nothing else written. Anything else counts as not. What
    triggers write is not seen: an UPDATE that moves an ``updated_at`` counts as going along, and leaves that moved.
    """
    written = [lock for lock in locks.locks_of(sql) if lock.mode not in ("ACCESS SHARE", "ROW SHARE")]
    if len(written) != 1 or len(sqltext.statements(sql)) != 1:
        return False
    if update := _UPDATE.match(sql):
        table = update["table"] if "." in update["table"] else f"public.{update['table']}"
        return f"{table}.{update['column']}" in made or table in made
    if insert := _INSERT.match(sql):
        return (insert["table"] if "." in insert["table"] else f"public.{insert['table']}") in made
    return False


@dataclass(frozen=True)
class _Part:
    """One statement, or several, of a transaction: what changes, the catalog before and after, and how content is kept."""

    texts: tuple[str, ...]
    changes: tuple[Change, ...]
    before: Facets
    after: Facets
    keepings: tuple[Keeping, ...]

    def statements(self) -> tuple[Statement, ...]:
        """Keep, do, note."""
        kept = tuple(s for one in self.keepings for s in one.keep)
        return (*kept, *(Statement(text) for text in self.texts), *(s for one in self.keepings for s in one.note))


Pairs = Sequence[tuple[Sequence[str], Sequence[Change]]]


def _parts(
    pairs: Pairs, live: Facets, keeper: Keeper, *, keeping: bool, own: Sequence[tuple[Keeping, ...]] = ()
) -> list[_Part]:
    """Statement by statement, because a rename is recognised only on its own, and content is kept only once it is there.

    Raises: NotInvertible.
    """
    parts, state = [], live
    for n, (texts, changes) in enumerate(pairs):
        lost = [c.reversed() for c in changes]
        kept = tuple(keepings(lost, keeper=keeper, purpose=f"forth{n}", content=state)) if keeping else ()
        kept += own[n] if own else ()
        after = moved(state, changes)
        parts.append(_Part(tuple(texts), tuple(changes), state, after, kept))
        state = after
    return parts


def transaction(
    says: str,
    pairs: Pairs,
    live: Facets,
    keeper: Keeper,
    *,
    again: Sequence[Sequence[str]] = (),
    own: Sequence[tuple[Keeping, ...]] = (),
) -> Step:
    """The statements in one transaction, each after those that keep the content it would lose; undo puts that back."""
    before, after = _expects(net(change for _, changes in pairs for change in changes), live)
    try:
        parts = _parts(pairs, live, keeper, keeping=True, own=own)
        undo, irreversible = _way_back(parts, before, after, keeper, again), ""
    except NotInvertible as error:
        parts = _parts(pairs, live, keeper, keeping=False)
        undo, irreversible = (), error.message
    statements = tuple(statement for part in parts for statement in part.statements())
    return Step(
        says=says,
        statements=statements,
        locks=_locks(statements, but=keeper.schema),
        rewrite=_worst(locks.rewrites(text) for part in parts for text in part.texts),
        before=before,
        after=after,
        undo=undo,
        irreversible=irreversible,
    )


def _way_back(
    parts: Sequence[_Part],
    before: tuple[Expect, ...],
    after: tuple[Expect, ...],
    keeper: Keeper,
    again: Sequence[Sequence[str]],
) -> tuple[Step, ...]:
    """The last part first.  Raises: NotInvertible."""
    if not any(part.changes or part.keepings for part in parts):
        return ()
    texts = again or [()] * len(parts)
    statements = tuple(s for n, part in reversed(list(enumerate(parts))) for s in _part_back(n, part, keeper, texts[n]))
    said = ", ".join(dict.fromkeys(change.identity for part in parts for change in part.changes)) or "the rows"
    return (
        Step(
            says=f"Take back {said}",
            statements=statements,
            locks=_locks(statements, but=keeper.schema),
            before=after,
            after=before,
        ),
    )


def _part_back(n: int, part: _Part, keeper: Keeper, again: Sequence[str]) -> tuple[Statement, ...]:
    """Keep what this loses in turn; objects back, then content, then the rules that content must satisfy."""
    texts = tuple(again) or ddl.filled(ddl.inverse_of(part.changes, live=frame(part.after)))
    texts = granted.with_its_own(texts, [c.reversed() for c in part.changes], part.before)
    first, rules = _split(texts, in_order=not again) if part.keepings else (texts, ())
    return (
        *(s for one in part.keepings for s in one.compare),
        *(s for one in keepings(part.changes, keeper=keeper, purpose=f"back{n}", content=part.after) for s in one.keep),
        *(Statement(text) for text in first),
        *(s for one in part.keepings for s in one.restore),
        *(Statement(text) for text in rules),
        *(s for one in part.keepings for s in one.finish),
    )


_CONTENT = re.compile(
    r"create (?:unlogged )?table |alter table .* (?:add column .*|alter column .* type .*)$|alter table .* rename ",
    re.IGNORECASE | re.DOTALL,
)
_RULE = re.compile(
    r"set not null|add constraint|create unique index|validate constraint|create (?:constraint )?trigger|(?:enable|disable) \w* ?trigger|create (?:or replace )?rule|"
    r"create materialized view|row level security|replica identity|comment on (?:constraint|index|trigger|rule|materialized view)",
    re.IGNORECASE,
)


def _split(texts: Sequence[str], *, in_order: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What must be there for content to come back, and what the content must satisfy, or what is made from it.

    Our own texts are in an order that has this place; a project's need not be.
    """
    if not in_order:
        return tuple(t for t in texts if not _RULE.search(t)), tuple(t for t in texts if _RULE.search(t))
    at = max((n + 1 for n, text in enumerate(texts) if _CONTENT.match(text)), default=0)
    return tuple(texts[:at]), tuple(texts[at:])


def frame(state: Facets) -> pd.DataFrame:
    """A catalog as ``ddl`` takes it: what hangs on a view that must be made anew is taken from it."""
    return pd.DataFrame([(*key, text) for key, text in state.items()], columns=list(COLUMNS), dtype="str")


def _alone(wanted: Wanted, live: Facets) -> Step:
    """A statement outside any transaction; an index that it leaves half built is dropped before it is tried again."""
    before, after = _expects(net(wanted.changes), live)
    texts = tuple(Statement(re.sub(r"(?i)^set local ", "set ", text)) for text in (*wanted.settings, wanted.sql))
    index = next((c for c in wanted.changes if c.kind == "index"), None)
    if index and index.after is None and index.before is not None:
        found = drop_index(index.identity, live.get(("index", index.identity), index.before), says=wanted.says)
        return replace(found, statements=texts)
    drop = (Statement(f"drop index concurrently if exists {index.identity}"),) if index else ()
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
        statements=texts,
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


def take_back(
    done: Sequence[tuple[str, Sequence[Change]]], *, says: str, live: Facets, keeper: Keeper
) -> tuple[Step, ...]:
    """Steps that undo what is in the database: indexes first, without blocking, then the rest in one transaction, last first.

    ``done``: each statement that ran with what it changed, in the order in which they ran. One at a time, because a rename is
    recognised only on its own; and by its own text on the way back, because what PostgreSQL prints of an expression is not
    always what it was made from ('' where the text does not make what is there).

    Raises: NotInvertible naming what no SQL is known for.
    """
    changed = [change for _, changes in done for change in changes]
    made = {c.identity for c in changed if c.kind == "table" and c.before is None}
    indexes = [
        c
        for c in net(changed)
        if c.kind == "index" and c.before is None and ddl.index_table(c.after or "") not in made
        if not over_partitions(c.after or "")
    ]
    keys = {(c.kind, c.identity) for c in indexes}
    steps = [drop_index(c.identity, live[c.kind, c.identity], says=f"Drop index {c.identity}") for c in indexes]
    pairs, again, state = [], [], live
    for text, changes in reversed(done):
        if rest := [c for c in changes if (c.kind, c.identity) not in keys]:
            pairs.append((ddl.inverse_of(rest, live=frame(state)), [c.reversed() for c in rest]))
            again.append(_without_indexes([text], indexes) if text and locks.runs_in_transaction(text) else ())
            state = moved(state, pairs[-1][1])
    if pairs:
        steps.append(transaction(says, pairs, live, keeper, again=again))
    return tuple(steps)


def _without_indexes(texts: Sequence[str], indexes: Sequence[Change]) -> tuple[str, ...]:
    """Those of the statements that make none of these indexes: each of them is built again by a step of its own."""
    known = {names.unquoted(names.last(index.identity)) for index in indexes}
    made = (
        re.match(
            r'\s*create\s+(?:unique\s+)?index\s+(?:if\s+not\s+exists\s+)?("(?:[^"]|"")*"|\S+)', text, re.IGNORECASE
        )
        for text in texts
    )
    return tuple(
        text for text, match in zip(texts, made, strict=True) if not match or names.unquoted(match[1]) not in known
    )


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


def _locks(statements: Iterable[Statement], *, but: str) -> tuple[Lock, ...]:
    """One lock per relation: the strongest that any of the statements takes; what lies in our own schema is nobody else's."""
    best: dict[str, Lock] = {}
    for lock in (lock for statement in statements for lock in locks.locks_of(statement.sql)):
        if names.unquoted(names.split(lock.relation)[0]) == but and "." in lock.relation:
            continue
        if lock.relation not in best or _MODES.index(lock.mode) > _MODES.index(best[lock.relation].mode):
            best[lock.relation] = lock
    return tuple(best.values())


_MODES = (
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)


def _worst(answers: Iterable[bool | None]) -> bool | None:
    """True if any rewrites; None if that is not known for one; else False."""
    seen = set(answers)
    return True if True in seen else None if None in seen else False

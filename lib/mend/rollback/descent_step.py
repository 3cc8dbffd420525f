"""The one transaction of a way down: what hangs on it first, then downgrade(), what it leaves, what makes sense again, and the version rows.  Pure.

RESTRICT always; nothing is dropped that is not named; whatever fails rolls all of it back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mend.change import ddl, granted, kept, locks, weights
from mend.database import names, parameters, sqltext
from mend.database.catalog import Change
from mend.errors import NotInvertible, Refused
from mend.mismatch import reconcile
from mend.plan import Statement, Step
from mend.repairs import halfway, steps
from mend.rollback.dependents import Key
from mend.rollback.descent import Facts
from mend.rollback.hanging import Hanging
from mend.rollback.pieces import Piece, facets_of, settings_reset
from mend.rollback.toll import CONCURRENTLY

_NOT_OURS = {
    "table": "it is a table of its own",
    "column": "it is a column of its own, and holds values",
    "publication": "a publication's list of tables or columns is changed by hand: alter publication",
    "sequence": "it is a sequence of its own",
}


@dataclass(frozen=True)
class Made:
    """The steps of a way down, which dependents stay dropped, and why it is not possible, if it is not."""

    steps: tuple[Step, ...]
    stay: tuple[Hanging, ...]
    why_not: str


def down(facts: Facts, *, leave: frozenset[Key] | None, lossy: bool) -> Made:
    """The way down in one transaction.  ``leave``: dependents that may stay dropped, None for all; ``lossy``: what is lost may be."""
    why_not = no_path(facts) or _unknown(facts, lossy) or _in_the_way(facts)
    if why_not:
        return Made((), (), why_not)
    stay = tuple(one for one in facts.hanging if facts.why_gone(one))
    if kept_out := [one for one in stay if leave is not None and one.key not in leave]:
        told = ", ".join(f"{one.kind} {one.identity}" for one in kept_out)
        why = f"{told}: nothing can make that again, for it needs what goes; name it in leave (parted by ;, or all) and it stays dropped, with its script kept"
        return Made((), stay, why)
    try:
        step = _step(facts, stay)
    except (NotInvertible, Refused) as error:
        return Made((), stay, error.message.replace(" Nothing was changed.", "").rstrip("."))
    if step.irreversible and not lossy:
        return Made((), stay, f"it could not be taken back: {step.irreversible}; best_effort does it with that loss")
    return Made((_rescued(step, facts) if step.irreversible else step,), stay, "")


def _rescued(step: Step, facts: Facts) -> Step:
    """Without a way back, what can be kept of the content is kept all the same: where its rows can be told apart."""
    found: list[Statement] = []
    gone = [c for p in facts.pieces for c in p.changes if c.after is None and c.kind in ("table", "column")]
    tables = {c.identity for c in gone if c.kind == "table"}
    for n, change in enumerate(gone):
        along = change.kind == "column" and names.parent(change.identity) in tables
        if along or not ddl.losses([change.reversed()]) or (change.kind, change.identity) not in facts.live:
            continue
        try:
            kept_ = kept.keepings([change.reversed()], keeper=facts.keeper, purpose=f"rescue{n}", content=facts.live)
        except NotInvertible:
            continue
        found += [s for one in kept_ for s in one.keep if s.sql not in {t.sql for t in step.statements}]
    return replace(step, statements=(*found, *step.statements))


def no_path(facts: Facts) -> str:
    if facts.choices:
        heads = " or ".join(f"{one}@-1" for one in facts.choices)
        return f"the database is at several heads, and nobody said which to go back from: pass revision={heads}"
    return "" if facts.path else "there is no revision to take back"


def _unknown(facts: Facts, lossy: bool) -> str:
    """Why the SQL of the way down is not known, or must not be run unasked."""
    for one in facts.path:
        proof = facts.proven.proofs.get(one)
        if proof is None:
            return f"{one} could not be proven in scratch"
        if proof.failed and not proof.failed.sqlstate and not lossy:
            return f"downgrade() of {one} says that it cannot be taken back ({proof.failed.says}); best_effort takes back what upgrade() made"
        if proof.failed is None and (proof.reads or not all(s.rendered for s in proof.statements)):
            return f"downgrade() of {one} computes its SQL from rows, so only alembic itself can run it; drop what is in its way first"
        bad = [s for s in proof.statements if not locks.runs_in_transaction(CONCURRENTLY.sub(r"\1", s.sql))]
        if proof.failed is None and bad:
            return f"{bad[0].says} of {one} cannot run in a transaction"
    return ""


def _in_the_way(facts: Facts) -> str:
    """What refuses the way down whatever is dropped first."""
    if facts.obstacles:
        name, (revision, says) = next(iter(facts.obstacles.items()))
        return f"{name} of {revision} is refused: {says}"
    lacking = [(p.revision, c) for p in facts.pieces for c in p.lacking]
    if lacking:
        revision, c = lacking[0]
        return f"{revision} drops or changes {c.kind} {c.identity}, which is not here: mend that first ({parameters.pointer('environment_mismatch')})"
    if stranger := _strangers(facts):
        return stranger
    for one in facts.hanging:
        generated = one.kind == "column" and " generated always as (" in facts.live[one.key]
        if one.kind in _NOT_OURS and not generated:
            return f"{one.kind} {one.identity} depends on {' '.join(one.start)}, and {_NOT_OURS[one.kind]}: decide about it by hand"
    return ""


def _strangers(facts: Facts) -> str:
    """What belongs to a role that the session may not act as: it could neither be dropped nor handed back."""
    named = {one.identity: one.kind for one in facts.hanging}
    touched = [*named, *(halfway.relation_of(c) for p in facts.pieces for c in p.changes)]
    for identity in dict.fromkeys((*touched, *(names.parent(one) for one in named))):
        for word in ("table", "routine", "sequence", "type"):
            owner = facts.live.get(("owner", f"{word} {identity}"))
            if owner and owner not in facts.roles:
                what = f"{named.get(identity, word)} {identity}"
                return f"{what} belongs to {owner}, and the target's role is not a member of that (42501): run as a role that is, or as a superuser"
    return ""


def _step(facts: Facts, stay: Sequence[Hanging]) -> Step:
    """Everything in one transaction.  Raises: NotInvertible."""
    first, pairs, state = _dropped(facts), [], dict(facts.live)
    if first:
        pairs.append((ddl.forward_of(first, live=steps.frame(state)), first))
        state = steps.moved(state, first)
    before: tuple[str, ...] = ()
    for piece in facts.pieces:
        texts, before = _texts(piece, before)
        changes = _from(piece.changes, state)
        pairs.append((texts, changes))
        state = steps.moved(state, changes)
    again = _again(facts, stay, state)
    if again:
        texts = ddl.forward_of(again, live=steps.frame(state))
        state = steps.moved(state, again)
        pairs.append((granted.with_its_own(texts, again, state), again))
    step = steps.transaction(_says(facts, stay), pairs, facts.live, facts.keeper)
    step = _marked(step, facts, [c for _, changes in pairs for c in changes], state)
    step = _in_order(_honest(step, facts, again), facts)
    return _weighed(_recorded(step, facts, stay), facts)


def _says(facts: Facts, stay: Sequence[Hanging]) -> str:
    count = len(facts.hanging)
    parts = [f"Drop {count} dependents" if count else "", f"take back {', '.join(facts.path)}"]
    if made := count - len(stay):
        parts.append(f"make {made} of them again" if stay else "make them again")
    if stay:
        parts.append(f"keep the script of {len(stay)} that stay dropped")
    said = ", ".join(filter(None, parts))
    return said[0].upper() + said[1:]


def _dropped(facts: Facts) -> tuple[Change, ...]:
    """What is in the way, with all that hangs on it, as it goes."""
    found = facets_of([one.key for one in facts.hanging], facts.live)
    return tuple(Change(*key, text, None) for key, text in found)


def _texts(piece: Piece, before: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A piece's SQL with what must be set for it; what held for the one before ends."""
    one = piece.statement
    if one is None:
        wanted: tuple[str, ...] = ()
    else:
        path = one.search_path
        wanted = (*((f"set local search_path = {path}",) if path not in ("", '"$user", public') else ()), *one.settings)
    ends = () if before == wanted else dict.fromkeys(re.sub(r"^(?i:set local) ([\w.]+).*", r"set local \1 to default", t, flags=re.DOTALL) for t in before)  # fmt: skip
    sets = () if before == wanted else wanted
    return (*ends, *sets, *(CONCURRENTLY.sub(r"\1", text) for text in piece.texts)), wanted


def _from(changes: Iterable[Change], state: kept.Facets) -> tuple[Change, ...]:
    """The changes from how it is by then: what was dropped before is no change any more."""
    moved = (Change(c.kind, c.identity, state.get((c.kind, c.identity)), c.after) for c in changes)
    return tuple(c for c in moved if c.before != c.after)


def _again(facts: Facts, stay: Sequence[Hanging], state: kept.Facets) -> tuple[Change, ...]:
    """What still makes sense, made again with all that hung on it."""
    gone = {one.key for one in stay}
    wanted = facets_of([one.key for one in facts.hanging if one.key not in gone], facts.live)
    reset = [key for p in facts.pieces for key in settings_reset(p.changes) if _can_be_set(key, facts.live, state)]
    wanted += [(key, facts.live[key]) for key in reset]
    return tuple(Change(*key, None, text) for key, text in dict(wanted).items() if key not in state)


def _can_be_set(key: Key, live: kept.Facets, state: kept.Facets) -> bool:
    """Whether the storage of a column makes sense for the type that it gets back: of another family it does not."""
    column = ("column", names.parent(key[1]))
    texts = ("text", "character")
    same = live.get(column, "").startswith(texts) and state.get(column, "").startswith(texts)
    return key in live and same


def _marked(step: Step, facts: Facts, changes: Sequence[Change], state: kept.Facets) -> Step:
    """With what no facet tells of an object that was made anew: which index is the one to CLUSTER by, which rule is off."""
    touched = {(c.kind, c.identity) for c in changes}
    marks = [one for one in facts.marks if one.sql and (one.kind, one.identity) in touched]
    forth = [Statement(one.sql) for one in marks if (one.kind, one.identity) in state]
    back = tuple(Statement(one.sql) for one in marks)
    undo = tuple(replace(one, statements=(*one.statements, *back)) for one in step.undo)
    return replace(step, statements=(*step.statements, *forth), undo=undo)


def _honest(step: Step, facts: Facts, again: Sequence[Change]) -> Step:
    """Without expectations that nobody can know beforehand: a view made again on a column of another type shows that type."""
    if not any(c.kind == "column" and c.before and c.after for p in facts.pieces for c in p.changes):
        return _with_rows(step, facts)
    unsure = {(c.kind, c.identity) for c in again if c.kind in ("view", "matview", "function")}
    after = tuple(e for e in step.after if (e.kind, e.identity) not in unsure)
    undo = tuple(replace(one, before=tuple(e for e in one.before if (e.kind, e.identity) not in unsure)) for one in step.undo)  # fmt: skip
    return _with_rows(replace(step, after=after, undo=undo), facts)


def _in_order(step: Step, facts: Facts) -> Step:
    """The way back makes a table with its columns in the order that they had: an INSERT without names goes by it."""

    def ordered(one: Statement) -> Statement:
        made = _CREATES.match(one.sql)
        order = facts.orders.get(made["table"], ()) if made else ()
        if not made or not order:
            return one
        listed = {names.pieces(item)[0]: item for item in names.items(made["columns"])}
        items = ", ".join(listed[name] for name in order) if set(listed) == set(order) else made["columns"][1:-1]
        return replace(one, sql=f"{made['head']}({items}){made['rest']}")

    return replace(step, undo=tuple(replace(one, statements=tuple(map(ordered, one.statements))) for one in step.undo))


_CREATES = re.compile(
    rf"(?P<head>create (?:unlogged )?table (?P<table>{sqltext.NAME}) )(?P<columns>\((?:[^()]|\([^()]*\))*\))(?P<rest>.*)",
    re.DOTALL,
)


def _with_rows(step: Step, facts: Facts) -> Step:
    """Rows that downgrade() changes by SQL of its own: their old values are not kept."""
    made = {c.identity for p in facts.pieces for c in p.changes if c.before is None}
    rows = [
        p.says
        for p in facts.pieces
        if p.statement and sqltext.may_change_rows(p.statement.sql) and not steps.goes_along(p.statement.sql, made)
    ]
    if not rows:
        return step
    reason = f"it changes rows by the project's own SQL ({'; '.join(rows)}), whose old values are not kept"
    return replace(step, undo=(), irreversible=reason)


def _recorded(step: Step, facts: Facts, stay: Sequence[Hanging]) -> Step:
    """The version rows move in the same transaction, by compare-and-set; the script of what stays dropped is kept first."""
    move = reconcile.recorded(facts.table, facts.rows_then)
    script: tuple[Statement, ...] = ()
    if stay:
        lost = facets_of([one.key for one in stay], facts.live)
        texts = ddl.forward_of(Change(*key, None, text) for key, text in lost)
        script = kept.script(facts.keeper, f"what {', '.join(facts.path)} dropped along", texts)
    undo = step.undo
    if undo:
        undo = (replace(undo[0], statements=(*move.undo[0].statements, *undo[0].statements)), *undo[1:])
    elif not step.irreversible:
        undo = move.undo
    said = f"{step.says}; record {', '.join(facts.rows_then) or 'no revision'}"
    return replace(step, says=said, statements=(*script, *step.statements, *move.statements), undo=undo)


def _weighed(step: Step, facts: Facts) -> Step:
    seconds = sum(weights.seconds(s.sql, facts.sizes, rewrites=False) for s in step.statements)
    return replace(step, estimated_s=round(seconds, 2))

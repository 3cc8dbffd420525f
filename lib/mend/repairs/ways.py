"""The ways out of a half-applied revision: resume, roll back, stamp exactly, retry; each with its steps, or why it is not possible.

Pure: from `halfway.Facts`, which know every statement and its state, to the steps of a plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from mend.change import belonging, ddl, weights
from mend.database import catalog, names, sqltext
from mend.database.catalog import Change
from mend.errors import NotInvertible
from mend.plan import Choice, Expect, Statement, Step
from mend.repairs import steps, versions
from mend.repairs.halfway import Facts, Seen
from mend.repairs.steps import Facets, Wanted
from mend.replays import replay

_DEFAULT_PATH = '"$user", public'
_ALREADY = {
    "table": "42P07",
    "index": "42P07",
    "view": "42P07",
    "matview": "42P07",
    "sequence": "42P07",
    "column": "42701",
}


def retry(facts: Facts) -> list[tuple[int, str, str]]:
    """(operation, says, what a plain retry would do there), for the operations that are in its way."""
    found = []
    for one in facts.seen:
        if one.state not in ("DONE", "DIFFERENT") or one.statement.finishes:
            continue
        if not sqltext.guarded(one.statement.sql):
            found.append((one.statement.operation, one.statement.says, f"fails: {_refusal(one)}"))
        elif one.state == "DIFFERENT":
            found.append(
                (one.statement.operation, one.statement.says, f"reports success and changes nothing: {one.detail}")
            )
    return found


def _refusal(one: Seen) -> str:
    for change in one.statement.changes:
        if change.before is None:
            return f"{change.kind} {change.identity} exists already ({_ALREADY.get(change.kind, '42710')})"
        if change.after is None:
            return f"{change.kind} {change.identity} is gone already"
    return "it was done already"


def ways_out(facts: Facts, *, blocked: str) -> list[tuple[Choice, tuple[Step, ...]]]:
    """The four options, the best first, each with its steps or with why it is not possible."""
    if facts.revision is None or (facts.stamped and facts.complete()):
        return []
    ways = [_resume(facts, blocked), _roll_back(facts), _stamp(facts), _retry(facts)]
    first = "stamp" if facts.complete() else "retry" if facts.untouched() else "resume"
    weighed = [(choice, tuple(_weighed(step, facts) for step in made)) for choice, made in ways]
    return sorted(weighed, key=lambda way: way[0].option != first)


def _weighed(step: Step, facts: Facts) -> Step:
    """The step with about how long it takes, and how many rows it changes at the most."""
    seconds = sum(weights.seconds(s.sql, facts.sizes, rewrites=step.rewrite) for s in step.statements)
    changed = [
        facts.sizes[table].rows for s in step.statements if (table := weights.table_changed(s.sql)) in facts.sizes
    ]
    return replace(step, estimated_s=round(seconds, 2), rows_expected=sum(changed) if changed else None)


def _resume(facts: Facts, blocked: str) -> tuple[Choice, tuple[Step, ...]]:
    says, costs = (
        "Run the operations that are missing, then record the revision",
        "what is done stays; the locks of the missing operations",
    )
    why_not = (
        blocked
        or facts.replayed.error
        or _undecided(facts)
        or _not_mendable(facts)
        or _not_runnable(facts)
        or ("nothing is missing" if facts.complete() else "")
    )
    if why_not:
        return Choice("resume", says, costs, False, why_not), ()
    missing = [one for one in facts.seen if one.ran is not True]
    made = tuple(step for one in missing for step in _cleared(one, facts))
    if _computed(facts, missing) and not _keeps_to_record(facts, missing):
        return Choice("resume", says, costs), (*made, _upgrade(facts, _without(facts, made)))
    wanted = [w for one in missing if (w := _wanted(one, facts))]
    return Choice("resume", says, costs), _recorded(
        (*made, *steps.make(wanted, live=_without(facts, made), keeper=facts.keeper)), facts
    )


def finishing(facts: Facts, wanted: Seen, safe: Sequence[Step]) -> tuple[tuple[Step, ...], str]:
    """The steps that finish the revision with ``safe`` in place of the statement ``wanted``, its version row recorded last.

    ``((), why)`` where only Alembic can finish it: SQL that is computed from rows, or row changes of the project's own, which
    could not be taken back.
    """
    if facts.revision is None or facts.stamped:
        return tuple(safe), ""
    missing = [one for one in facts.seen if one.ran is not True]
    ahead = [one for one in missing if _gives_default(one, wanted)]
    others = [one for one in missing if one is not wanted and one not in ahead]
    why_not = (
        facts.replayed.error
        or _undecided(facts)
        or _not_mendable(replace(facts, seen=tuple(one for one in facts.seen if one is not wanted)))
        or ("what is missing depends on rows that upgrade() reads" if _computed(facts, missing) else "")
        or (f"{wanted.statement.says} makes more than this constraint" if len(wanted.statement.changes) > 1 else "")
    )
    if why_not:
        return (), why_not
    at = sum(one in others for one in missing[: missing.index(wanted)]) if wanted in missing else 0
    before, after = (
        _finished(part, facts, suffix) for part, suffix in (([*ahead, *others[:at]], "before"), (others[at:], "after"))
    )
    steps_ = _recorded((*before, *safe, *after), facts)
    lost = [step.irreversible for step in steps_ if not step.reversible() and step not in safe]
    return ((), lost[0]) if lost else (steps_, "")


def _gives_default(one: Seen, wanted: Seen) -> bool:
    """Whether a statement gives the column that is to be NOT NULL its default: without it first, the application's inserts would fail."""
    columns = {c.identity for c in wanted.statement.changes if c.kind == "not_null"}
    changes = one.statement.changes
    return bool(changes) and all(c.kind == "default" and c.after and c.identity in columns for c in changes)


def _finished(missing: Sequence[Seen], facts: Facts, purpose: str) -> tuple[Step, ...]:
    """The steps of some of the missing statements."""
    cleared = tuple(step for one in missing for step in _cleared(one, facts))
    wanted = [w for one in missing if (w := _wanted(one, facts))]
    keeper = replace(facts.keeper, key=f"{facts.keeper.key}{purpose}")
    return (*cleared, *steps.make(wanted, live=_without(facts, cleared), keeper=keeper))


def _undecided(facts: Facts) -> str:
    """The row changes of which nobody knows whether they ran."""
    if facts.replayed.reads and not facts.rows_said and not facts.untouched():
        return "upgrade() reads rows, so it may have changed rows by SQL that a replay cannot see; say data_operations=ran or not_run"
    open_ = [str(one.statement.operation) for one in facts.seen if one.state == "DATA" and one.ran is None]
    return (
        f"the catalog cannot tell whether operation {', '.join(open_)} ran; say data_operations=ran or not_run"
        if open_
        else ""
    )


def _not_mendable(facts: Facts) -> str:
    """What is DIFFERENT in a way that no step here repairs."""
    for one in facts.seen:
        if one.state == "DIFFERENT" and not all(_repairable(change, facts.live) for change in one.statement.changes):
            return f"operation {one.statement.operation} ({one.statement.says}) is DIFFERENT: {one.detail}"
    return ""


def _repairable(change: Change, live: Facets) -> bool:
    now = live.get((change.kind, change.identity))
    return now in (change.before, change.after) or _invalid(change, live) or _not_valid(change, live)


def _invalid(change: Change, live: Facets) -> bool:
    """The wanted index is there, and INVALID."""
    now = live.get((change.kind, change.identity), "")
    return change.kind == "index" and now != change.after and catalog.index_state(now)[0] == change.after


def _not_valid(change: Change, live: Facets) -> bool:
    """The wanted constraint is there, and NOT VALID."""
    return (
        change.kind == "constraint"
        and change.after is not None
        and live.get((change.kind, change.identity)) == f"{change.after} NOT VALID"
    )


def _cleared(one: Seen, facts: Facts) -> list[Step]:
    """Drop the INVALID index that a missing statement will build."""
    bad = [c for c in one.statement.changes if _invalid(c, facts.live)]
    return [
        steps.drop_index(c.identity, facts.live[c.kind, c.identity], says=f"Drop the INVALID index {c.identity}")
        for c in bad
    ]


def _without(facts: Facts, made: Iterable[Step]) -> dict[tuple[str, str], str]:
    """The live catalog as it is after those steps."""
    gone = {(e.kind, e.identity) for step in made for e in step.after if e.definition is None}
    return {key: text for key, text in facts.live.items() if key not in gone}


def _wanted(one: Seen, facts: Facts) -> Wanted | None:
    """The statement to run for a missing one: itself, or VALIDATE where its constraint is only NOT VALID."""
    changes = one.statement.changes
    waiting = [c for c in changes if _not_valid(c, facts.live)]
    if waiting and len(waiting) == len(changes):
        c = waiting[0]
        sql = f"alter table {names.parent(c.identity)} validate constraint {names.last(c.identity)}"
        return Wanted(
            sql, f"Validate {c.identity}", (Change(c.kind, c.identity, facts.live[c.kind, c.identity], c.after),)
        )
    size = facts.sizes.get(weights.table_changed(one.statement.sql)) if one.statement.data else None
    at_most = weights.rows_ceiling(size) if size else None
    return Wanted(
        one.statement.sql,
        one.statement.says,
        changes,
        sqltext.may_change_rows(one.statement.sql),
        _settings(one.statement),
        at_most,
        one.statement.segment,
        one.keeps,
    )


def _settings(statement: replay.Statement) -> tuple[str, ...]:
    """What the project's session had set when it sent the statement."""
    path = statement.search_path
    return (*((f"set local search_path = {path}",) if path not in ("", _DEFAULT_PATH) else ()), *statement.settings)


def _not_runnable(facts: Facts) -> str:
    """Why upgrade() cannot be run for what is missing, where only it knows the SQL."""
    missing = [one for one in facts.seen if one.ran is not True]
    if (
        (facts.loses_stamp or facts.lost_silently)
        and _computed(facts, missing)
        and not _keeps_to_record(facts, missing)
    ):
        return "only upgrade() knows the missing SQL, and it loses the version row when it runs (see Prevent): repair the file first"
    return ""


def _keeps_to_record(facts: Facts, missing: Sequence[Seen]) -> bool:
    """Whether the recorded SQL is all that is missing although upgrade() reads rows: the operator says that the row changes ran."""
    return facts.rows_said == "ran" and all(one.statement.rendered and one.state != "DATA" for one in missing)


def _computed(facts: Facts, missing: Sequence[Seen]) -> bool:
    """Whether the missing SQL depends on rows that upgrade() reads, or could not be written out."""
    return bool(facts.replayed.reads) or not all(one.statement.rendered for one in missing)


def _upgrade(facts: Facts, live: Facets) -> Step:
    """Run upgrade() under the project's interpreter, skipping what is done; Alembic records the revision in the same transaction."""
    assert facts.revision is not None
    ran = [one.statement.sql for one in facts.seen if one.ran is True]
    wanted = facts.changes()
    return Step(
        says=f"Run upgrade() of {facts.revision.id} under {facts.project.python}, leaving out {_left_out(facts, len(ran))}; it reads rows, so its SQL is known only as it runs",
        kind="upgrade",
        statements=tuple(Statement(one.statement.sql) for one in facts.seen if one.ran is not True),
        transactional=False,
        retryable=False,
        before=tuple(Expect(c.kind, c.identity, live.get((c.kind, c.identity))) for c in wanted),
        after=tuple(Expect(c.kind, c.identity, c.after) for c in wanted),
        irreversible="its SQL is computed from rows as it runs, so no inverse is known beforehand",
        arguments={
            "revision": facts.revision.id,
            "skip": ran,
            "recorded": [one.statement.sql for one in facts.seen],
            "rows": "leave" if facts.rows_said == "ran" else "send",
        },
    )


def _left_out(facts: Facts, count: int) -> str:
    rows = " and every change of rows" if facts.rows_said == "ran" else ""
    return f"the {count} statements that are done{rows}"


def _recorded(made: tuple[Step, ...], facts: Facts) -> tuple[Step, ...]:
    """The steps, the last of which also records the revision: in the same transaction where there is one."""
    if facts.revision is None or facts.stamped:
        return made
    move = versions.advance(facts.table, facts.revision.id, facts.past.parents(facts.revision.id))
    return versions.recorded(made, move, facts.revision.id)


def _roll_back(facts: Facts) -> tuple[Choice, tuple[Step, ...]]:
    says = "Take back the operations that are done; the revision can then be repaired and run from the start"
    rows = [one.statement.says for one in facts.seen if one.state == "DATA" and one.ran]
    costs = (
        "the work that is done"
        + (f"; changed rows stay as they are: {'; '.join(rows)}" if rows else "")
        + "; values in dropped columns are kept in schema mend"
    )
    why_not = (
        "the revision is recorded: use alembic downgrade"
        if facts.stamped
        else "nothing is there to take back"
        if facts.untouched()
        else _gone_for_good(facts) or _foreign(facts) or _depends(facts)
    )
    if why_not:
        return Choice("roll_back", says, costs, False, why_not), ()
    try:
        made = steps.take_back(
            [(one.statement.sql if one.state == "DONE" else "", _done(one, facts)) for one in facts.seen],
            says="Take back the operations that are done",
            live=facts.live,
            keeper=facts.keeper,
        )
    except NotInvertible as error:
        return Choice("roll_back", says, costs, False, error.message), ()
    return Choice(
        "roll_back", says, costs, bool(made), "" if made else "no operation that is done can be seen in the catalog"
    ), made


def _done(one: Seen, facts: Facts) -> list[Change]:
    """What one statement changed and is there now: of a DONE one all, else what is there in another state (INVALID, NOT VALID)."""
    if one.state == "DONE":
        return list(one.statement.changes)
    found = ((c, facts.live.get((c.kind, c.identity))) for c in one.statement.changes if one.state == "DIFFERENT")
    return [Change(c.kind, c.identity, c.before, now) for c, now in found if now != c.before]


def _gone_for_good(facts: Facts) -> str:
    """What the revision dropped, or cut, of content that was there before: no SQL brings it back."""
    for one in facts.seen:
        if one.ran and (lost := ddl.losses([c.reversed() for c in one.statement.changes])):
            return f"operation {one.statement.operation} ({one.statement.says}) took the content of {', '.join(lost)} along, and only a backup has it"
    return ""


def _depends(facts: Facts) -> str:
    """What somebody added by hand to a column or table that would be dropped: it would go along without a word."""
    going = {c.identity: c.kind for c in _there(facts) if c.kind in ("table", "column") and c.before is None}
    own = {(c.kind, c.identity) for one in facts.seen for c in one.statement.changes}
    for (kind, identity), definition in facts.live.items():
        if (kind, identity) in own or kind == "owner":
            continue
        holders = belonging.holders(kind, identity, definition)
        column = next(
            (
                name
                for name in going
                if going[name] == "column"
                and names.parent(name) in holders
                and names.last(name) in names.mentions(definition)
            ),
            "",
        )
        if (
            column and kind in ("index", "constraint", "trigger", "policy", "statistics", "rule")
        ) or holders & going.keys():
            return f"{kind} {identity} was added by hand to {column or ', '.join(sorted(holders & going.keys()))}, and would be dropped with it; drop it first"
    return ""


def _there(facts: Facts) -> list[Change]:
    """What the revision changed and is in the database now, as it is now."""
    found = ((c, facts.live.get((c.kind, c.identity))) for c in _spans(facts))
    return [Change(c.kind, c.identity, c.before, now) for c, now in found if now != c.before]


def _spans(facts: Facts) -> tuple[Change, ...]:
    """First state of every object the revision touches, also of those that end as they began."""
    first: dict[tuple[str, str], Change] = {}
    for one in facts.seen:
        for change in one.statement.changes:
            first.setdefault((change.kind, change.identity), change)
    return tuple(first.values())


def _foreign(facts: Facts) -> str:
    """An object that is in none of the states the revision gives it: somebody else's work is not taken back."""
    states: dict[tuple[str, str], set[str | None]] = {}
    for one in facts.seen:
        for c in one.statement.changes:
            states.setdefault((c.kind, c.identity), set()).update((c.before, c.after))
    for change in _there(facts):
        known = change.after in states[change.kind, change.identity]
        if not known and not any(
            _invalid(c, facts.live) or _not_valid(c, facts.live)
            for one in facts.seen
            for c in one.statement.changes
            if (c.kind, c.identity) == (change.kind, change.identity)
        ):
            return f"{change.kind} {change.identity} is not as the revision makes it: {change.after}"
    return ""


def _stamp(facts: Facts) -> tuple[Choice, tuple[Step, ...]]:
    says, costs = "Record exactly this revision, and no later one", "nothing but the version row changes"
    why_not = (
        "it is recorded already"
        if facts.stamped
        else ""
        if facts.complete()
        else facts.replayed.error or _undecided(facts) or "not every operation is DONE"
    )
    return Choice("stamp", says, costs, not why_not, why_not), () if why_not else _recorded((), facts)


def _retry(facts: Facts) -> tuple[Choice, tuple[Step, ...]]:
    state = "Nothing is half-done" if facts.untouched() else "The revision goes on from where it stopped"
    says, costs = f"{state}: run alembic upgrade again", "whatever made it fail may do so again"
    why_not = (
        "it is recorded already"
        if facts.stamped
        else ""
        if facts.untouched() or facts.finishes_itself()
        else "operations are done already; see Would a plain retry work?"
    )
    if not why_not and facts.lost_silently:
        why_not = "env.py runs SQL before context.configure(), so a retry reports success and is rolled back"
    return Choice("retry", says, costs, not why_not, why_not), ()


def remains(facts: Facts) -> list[str]:
    """After a roll back: what is still there."""
    return [f"{c.kind} {c.identity} is still {c.after or 'gone'}" for c in _there(facts)]

"""The ways out of version_skew that are one plan: upgrade to what the application needs, an emergency repair, the application rolled forward.  Pure.

The fourth, a change in phases, is in `phases`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mend.database import names
from mend.database.catalog import Change
from mend.errors import NotInvertible, Refused
from mend.histories.project import Environment
from mend.mismatch import reconcile
from mend.mismatch.reconcile import Ground
from mend.plan import Choice, Expect, Statement, Step
from mend.repairs import steps, versions
from mend.repairs.steps import Wanted
from mend.repairs.versions import VersionTable
from mend.skew import notes, twins
from mend.skew.safety import renamed_of
from mend.skew.schemas import Cell
from mend.skew.sides import Facts

Way = tuple[Choice, tuple[Step, ...]]


def ground_of(facts: Facts) -> Ground:
    """What steps are made on."""
    return Ground(facts.live, facts.keeper, facts.major, facts.sizes)


# -- upgrade -------------------------------------------------------------------------------------------------------------


def upgrade(facts: Facts, *, goal: str) -> Way:
    """Run the pending revisions up to the one that the application needs, each recorded with its last statement."""
    wanted = _upto(facts, goal)
    last = wanted[-1] if wanted else ""
    says = f"Run what is pending up to {last}, which the application needs" if wanted else "Run the pending revisions"
    harm = breaks_old(facts, wanted)
    costs = (
        f"the application that runs now breaks: {harm}"
        if harm
        else "the locks of their operations; the application that runs now goes on"
    )
    why_not = _cannot_run(facts, wanted)
    if why_not:
        return Choice("upgrade", says, costs, False, why_not), ()
    try:
        return Choice("upgrade", says, costs), _run(facts, wanted)
    except (NotInvertible, Refused) as error:
        return Choice("upgrade", says, costs, False, error.message.split(". Nothing was changed")[0]), ()


def _upto(facts: Facts, goal: str) -> tuple[str, ...]:
    """The pending revisions that are needed: up to the named one, else the first after which the new application works, else all."""
    needed = facts.past.get(goal).id if goal else facts.needs
    known = facts.past.ancestors([needed]) if needed else set(facts.pending)
    return tuple(one for one in facts.pending if one in known)


def breaks_old(facts: Facts, wanted: Sequence[str]) -> str:
    """What these revisions would break of the application that runs now; '' for nothing that is known."""
    found = [one for one in facts.judged if one.safe == "no" and one.statement.revision in wanted]
    if found:
        return f"{found[0].object}: {found[0].why}" + (f", and {len(found) - 1} more" if len(found) > 1 else "")
    cell = next((one for one in facts.cells if (one.application.name, one.schema.name) == ("old", "new")), None)
    return cell.why if cell and facts.pending and cell.verdict == "breaks" else ""


def _cannot_run(facts: Facts, wanted: Sequence[str]) -> str:
    if facts.unknown:
        return f"the database is ahead of this code: no file has {', '.join(facts.unknown)}"
    if not wanted:
        return "no revision is pending"
    if begun := notes.standing_changes(facts.notes):
        return f"a change in phases was begun ({begun[-1].says}, run {begun[-1].run_id}): go on with it, or undo its runs first"
    if facts.made is None:
        return facts.unreplayed
    lacking = [one for one in wanted if one not in facts.made.ran]
    if lacking:
        return f"revision {lacking[0]} could not be replayed: {facts.made.stopped or 'it never ran'}"
    return ""


def _run(facts: Facts, wanted: Sequence[str]) -> tuple[Step, ...]:
    """The steps of these revisions, in order.  Raises: NotInvertible, Refused."""
    made: tuple[Step, ...] = ()
    ground, table = ground_of(facts), facts.table
    for n, revision in enumerate(wanted):
        here = replace(ground.after(made), keeper=replace(facts.keeper, key=f"{facts.keeper.key}r{n}"))
        own, table = _revision(facts, revision, here, table)
        made += own
    return made


def _revision(
    facts: Facts, revision: str, ground: Ground, table: VersionTable
) -> tuple[tuple[Step, ...], VersionTable]:
    """The steps of one revision, and the version rows after it."""
    assert facts.made is not None
    operations, parents = facts.operations([revision]), facts.past.parents(revision)
    after = replace(table, rows=(*(row for row in table.rows if row not in parents), revision), exists=True)
    computed = revision in facts.made.reads or not all(s.rendered for one in operations for s in one.statements)
    if computed:
        return (_by_project(facts, revision, ground),), after
    made = reconcile.repair(operations, ground, reads=())
    return versions.recorded(made, versions.advance(table, revision, parents), revision), after


def _by_project(facts: Facts, revision: str, ground: Ground) -> Step:
    """upgrade() itself, under the project's interpreter: its SQL is computed from what it reads."""
    if isinstance(facts.environment, Environment) and facts.environment.in_external_transaction:
        raise Refused(
            f"revision {revision} computes its SQL from rows, and env.py runs SQL before context.configure(), so upgrade() would be rolled back. "
            "Nothing was changed."
        )
    statements = [s.sql for one in facts.operations([revision]) for s in one.statements]
    changes = steps.net(c for one in facts.operations([revision]) for c in one.changes)
    return Step(
        says=f"Run upgrade() of {revision} under {facts.project.python}; it reads rows, so its SQL is known only as it runs",
        kind="upgrade", statements=tuple(Statement(one) for one in statements), transactional=False, retryable=False,
        before=tuple(Expect(c.kind, c.identity, ground.live.get((c.kind, c.identity))) for c in changes),
        after=tuple(Expect(c.kind, c.identity, c.after) for c in changes),
        irreversible="its SQL is computed from rows as it runs, so no inverse is known beforehand",
        arguments={"revision": revision, "skip": [], "recorded": statements, "rows": "send"},
    )  # fmt: skip


# -- an emergency repair -------------------------------------------------------------------------------------------------


def shim(facts: Facts, fills: Mapping[str, str]) -> Way:
    """Give the application what it cannot do without, by the least that does it; noted in the target, to be taken away again."""
    says = "Let both versions work until the right one is everywhere: a nullable column, a default, a name that is kept"
    costs = "a rule of the schema is weaker meanwhile; to be taken away again, with mend undo, once the right version is everywhere"
    broken = [one for one in facts.live_cells() if one.verdict == "breaks"]
    if not broken:
        return Choice("shim", says, costs, False, "no application is known to fail with this schema"), ()
    try:
        made = _shims(facts, broken, fills)
    except (NotInvertible, Refused) as error:
        return Choice("shim", says, costs, False, error.message.split(". Nothing was changed")[0]), ()
    said = "; ".join(step.says for step in made)
    change = f"shim {facts.keeper.key}"
    note = Step(
        says="Note that this is to be taken away again",
        statements=notes.noted(facts.keeper.schema, change=change, phase=notes.SHIM, says=said),
        undo=(Step("Forget the note", notes.forgotten(facts.keeper.schema, change=change, phase=notes.SHIM)),),
    )
    return Choice("shim", says, costs), (*made, note)


def _shims(facts: Facts, broken: Sequence[Cell], fills: Mapping[str, str]) -> tuple[Step, ...]:
    made: tuple[Step, ...] = ()
    ground = ground_of(facts)
    seen: set[str] = set()
    for cell in broken:
        for answer in cell.answers:
            if answer.verdict != "breaks" or answer.subject in seen:
                continue
            if not answer.subject or answer.sqlstate not in ("23502", "42703"):
                if any(one.subject and one.where == answer.where for one in cell.answers if one is not answer):
                    continue  # the same statement has a reason that is known
                raise Refused(f"nothing small helps against this: {answer.where}: {answer.why}")
            seen.add(answer.subject)
            here = replace(ground.after(made), keeper=replace(facts.keeper, key=f"{facts.keeper.key}s{len(seen)}"))
            made += (
                _let_go(answer.subject, here, fills)
                if answer.sqlstate == "23502"
                else _given(facts, cell, answer.subject, here)
            )
    return made


def _let_go(identity: str, ground: Ground, fills: Mapping[str, str]) -> tuple[Step, ...]:
    """A NOT NULL column that an INSERT does not know: a default where one was named, else NULL is let in."""
    owner, name = names.parent(identity), names.last(identity)
    if identity in fills:
        columns = {names.last(i) for kind, i in ground.live if kind == "column" and names.parent(i) == owner}
        if read := names.words(fills[identity]) & columns:
            raise Refused(f"a default of {identity} cannot be made of other columns ({', '.join(sorted(read))})")
        text = f"alter table {owner} alter column {name} set default {fills[identity]}"
        back = Step(
            f"Take the default of {identity} away",
            (Statement(f"alter table {owner} alter column {name} drop default"),),
        )
        return (
            replace(
                steps.make(
                    [Wanted(text, f"Give {identity} the default {fills[identity]}")],
                    live=ground.live,
                    keeper=ground.keeper,
                )[0],
                undo=(back,),
                irreversible="",
            ),
        )
    if name in steps.primary_keys(ground.live).get(owner, ()):
        raise Refused(f"{identity} is in the primary key: it cannot be NULL, name a default with fill")
    change = Change("not_null", identity, ground.live.get(("not_null", identity)), None)
    if change.before is None:
        raise Refused(f"{identity} is NOT NULL by its domain or by a parent table: name a default with fill")
    return steps.make(
        [Wanted(f"alter table {owner} alter column {name} drop not null", f"Let {identity} be NULL", (change,))],
        live=ground.live,
        keeper=ground.keeper,
    )


def _given(facts: Facts, cell: Cell, subject: str, ground: Ground) -> tuple[Step, ...]:
    """A column that is not there: the name that it was renamed to kept in step with it, or a nullable column."""
    if renamed := _renamed_to(facts, subject):
        return twins.made(renamed, names.last(subject_in(facts, subject)), ground)
    identity, definition = subject_in(facts, subject), _definition(facts, cell, subject)
    if not definition or ("table", names.parent(identity)) not in ground.live:
        raise Refused(f"the type of {subject} is not known")
    text = f"alter table {names.parent(identity)} add column {names.last(identity)} {definition}"
    return steps.make(
        [Wanted(text, f"Add {identity}, which may be NULL", (Change("column", identity, None, definition),))],
        live=ground.live,
        keeper=ground.keeper,
    )


def _same(one: str, other: str) -> bool:
    return [names.unquoted(part) for part in names.split(one)] == [names.unquoted(part) for part in names.split(other)]


def subject_in(facts: Facts, subject: str) -> str:
    """The column's name as the catalog quotes it, where the history knows it; else as it stands."""
    known = (c.identity for one in (facts.made.steps if facts.made else ()) for c in one.changes if c.kind == "column")
    return next((one for one in known if _same(one, subject)), subject)


def _definition(facts: Facts, cell: Cell, subject: str) -> str:
    """The column's type: as the history makes it last, else as the application declares it."""
    made = [
        c.after
        for one in (facts.made.steps if facts.made else ())
        for c in one.changes
        if c.kind == "column" and c.after and _same(c.identity, subject)
    ]
    if made:
        return made[-1].partition(" generated ")[0]
    table, name = names.unquoted(names.last(names.parent(subject))), names.unquoted(names.last(subject))
    return next((c.type for t in cell.application.tables for c in t.columns if (t.name, c.name) == (table, name)), "")


def _renamed_to(facts: Facts, subject: str) -> str:
    """The column that this one is called now, where a revision renamed it, or is called yet, where a pending one will."""
    for operation in facts.made.steps if facts.made else ():
        for statement in operation.statements:
            renamed = renamed_of(statement.changes)
            if renamed and renamed[0].kind == "column":
                old, new = renamed[0].identity, renamed[1].identity
                if operation.own and _same(old, subject) and ("column", new) in facts.live:
                    return new
                if not operation.own and _same(new, subject) and ("column", old) in facts.live:
                    return old
    return ""


# -- the application rolled forward --------------------------------------------------------------------------------------


def forward(facts: Facts) -> Way:
    """Nothing for mend to do: deploy the version that fits, or go back to it."""
    fits = [one.application for one in facts.live_cells() if one.verdict == "works"]
    words = {
        "new": "Deploy the new application everywhere: it works with this schema",
        "old": "Go back to the old application everywhere: it works with this schema",
    }
    chosen = next((words[name] for name in ("new", "old") if name in {one.name for one in fits}), "")
    says = chosen or "Deploy the version of the application that fits this schema"
    possible = bool(fits) or not any(one.application.given for one in facts.live_cells())
    return Choice(
        "forward",
        says,
        "no change to the database; a report",
        possible,
        "" if possible else "neither version is known to work with this schema",
    ), ()

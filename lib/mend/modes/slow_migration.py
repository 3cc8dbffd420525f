"""A migration takes too long: what it does, how far it is, when it will be done, and how the same is done without holding everybody up.

`plan` lets it run where it will be done soon; else it ends the statement (guarded) and changes the same rows in short batches, around which
the revision is finished; or it builds the index that the statement lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mend.batches import rows
from mend.database.catalog import Change
from mend.diagnosis import Check, Diagnosis, Prevention, Site
from mend.errors import InvalidParameter, Refused
from mend.plan import Choice, Plan, Statement, Step
from mend.queue import ending
from mend.record import markup
from mend.record.markup import Shown
from mend.repairs import steps, surroundings, ways
from mend.slow import eta, forward_file, long_work, looks, plots_eta
from mend.slow import long_work_checks as checks
from mend.slow.long_work import Facts

SLUG = "slow_migration"
OPTIONS = ("wait", "backfill", "index", "cancel")
Way = tuple[Choice, tuple[Step, ...], str]


def diagnose(site: Site, *, revision: str, pid: int, statement: int, watch_s: float, **given: Any) -> Diagnosis:
    """Look at the migration that runs, or at the one that is pending.

    Parameters
    ----------
    revision : the revision in question; empty: the next that is pending
    pid : the session of the migration; 0: the one that looks like it
    statement : the operation of the revision that is meant; 0: the one at work
    watch_s : seconds to spend on looking how far it is

    Returns
    -------
    Diagnosis with the checks environment, at_work, progress, waiting, rewriting, plan, takeover, wear, statements.

    Reads: pg_stat_activity, pg_locks, the progress views, the catalogs, evenly picked pages of the table.  Writes: nothing.
    Raises: Refused where that pid is not at work; InvalidParameter, ProjectBroken, RevisionNotFound, ReplayFailed.
    """
    facts = long_work.look(site, revision=revision, pid=pid, statement=statement, watch_s=watch_s, given=given)
    questions: tuple[Callable[[], Check], ...] = (
        partial(surroundings.environment, site, facts.halfway),
        partial(checks.running, facts),
        partial(checks.progress, facts),
        partial(checks.waiting, facts),
        partial(checks.rewriting, site, facts),
        partial(checks.plan_of, facts),
        partial(checks.taken_over, facts),
        partial(checks.wear, facts),
        partial(checks.statements, site),
    )
    return Diagnosis(
        tuple(surroundings.timed(ask) for ask in questions), long_work.evidence(facts), facts, _preventions(facts)
    )


def watch(site: Site, *, pid: int, **_: Any) -> Shown:
    """One look at how it stands now, for a view that is looked at again and again."""
    facts = looks.glimpse(site, pid=pid)
    lines = [checks.worth_watching(facts.worker) if facts.worker else "No migration is at work."]
    if facts.worker:
        lines.append(
            eta.words(facts.estimate, facts.course.unit)
            if facts.course.looks
            else f"How far it is cannot be seen: {facts.unmeasured}"
        )
        lines += [f"pid {one.pid} waits for it: {one.says}" for one in facts.waits_behind()]
    words = markup.shown([markup.paragraph(line) for line in lines], "\n".join(lines))
    return markup.joined(words, plots_eta.course(facts.course, facts.estimate))


def draw(diagnosis: Diagnosis, name: str) -> Shown | None:
    """The picture that belongs to a check."""
    facts: Facts | None = diagnosis.facts
    return plots_eta.course(facts.course, facts.estimate) if facts and name == "progress" else None


def plan(diagnosis: Diagnosis, *, option: str, **_: Any) -> Plan:
    """The steps of one option; without one named, the one that loses least.

    Waiting loses nothing, so a migration that will be done within ``patience_s`` is left alone.  Taking it over throws away what its
    transaction has done, and gives back in exchange that nobody is held up and that no later failure loses it all.

    Raises: InvalidParameter for an unknown option; Refused where the named one is not possible; WrongDatabase unless env.py was
    proven to lead to the target.
    """
    if option and option not in OPTIONS:
        raise InvalidParameter(
            f"option is {option!r}. Nothing was changed. Write one of {', '.join(OPTIONS)}, or leave it empty."
        )
    facts: Facts = diagnosis.facts
    if facts.worker is None and (facts.seen is None or facts.seen.ran is True or not facts.take.values):
        return _plan(diagnosis, "none", (), (), _nothing(facts))
    found = [_wait(facts), _backfill(facts), _index(facts), _cancel(facts)]
    chosen = option or _default(facts, {choice.option: choice.possible for choice, _, _ in found})
    choice, made, further = next(way for way in found if way[0].option == chosen)
    if not choice.possible:
        raise Refused(f"{chosen} is not possible: {choice.why_not}. Nothing was changed.")
    if made and facts.halfway:
        surroundings.require_same_database(diagnosis)
    return _plan(diagnosis, chosen, tuple(one for one, _, _ in found), made, further)


def _default(facts: Facts, possible: Mapping[str, bool]) -> str:
    patience_s = float(facts.given["patience_s"])
    if facts.worker is None:
        return "wait"  # nothing is at work: what to do before it starts is for the operator to choose
    if facts.worker.blocked_by:
        return "wait"  # it stands in a queue: another runbook
    soon = facts.estimate is not None and facts.estimate.high_s is not None and facts.estimate.high_s <= patience_s
    if soon:
        return "wait"
    return next((one for one in ("backfill", "index") if possible[one]), "wait")


def _plan(diagnosis: Diagnosis, chosen: str, options: tuple[Choice, ...], made: tuple[Step, ...], further: str) -> Plan:
    warnings = tuple(
        f"{c.question} Could not check: {c.why}" for c in diagnosis.checks if c.verdict == "could_not_check"
    )
    if any(step.kind == "end_backend" for step in made):
        warnings += (
            "Whatever started this migration may start it again (a deployment job, a container that restarts): stop that first, or it takes up the same work beside the repair.",
            "What its transaction has done is rolled back by PostgreSQL, at once; the space that it took is free only after a vacuum.",
        )
    facts: Facts = diagnosis.facts
    if chosen == "backfill" and not facts.take.closes:
        warnings += (
            f"The statement's own condition does not tell rows that are done, so a row is changed as long as it holds another value: where the application writes {', '.join(facts.take.told)} meanwhile, its value is overwritten. Stop such writes first.",
        )
    return Plan(SLUG, {}, diagnosis.evidence, chosen, options, made, further, warnings)


def _nothing(facts: Facts) -> str:
    left = checks.indexes_left(facts)
    drop = (
        f" The temporary index {', '.join(left)} is still there: `mend undo` of the run that made it drops it."
        if left
        else ""
    )
    return f"No migration is at work, and nothing that is pending can be done beforehand.{drop}"


# -- the options --------------------------------------------------------------------------------------------------------


def _wait(facts: Facts) -> Way:
    choice = Choice(
        "wait",
        "Let it run, and look again",
        "its locks and its snapshot stay until it ends; if it fails, all its work is lost",
    )
    if facts.worker is None:
        return (
            choice,
            (),
            f"Nothing is at work. Operation {facts.seen.statement.operation if facts.seen else 0} can be done ahead of the migration: option backfill.",
        )
    found = facts.estimate
    if facts.worker.blocked_by:
        return choice, (), "It waits for another session: see `mend plan deadlock`."
    if found is None or found.left_s is None or found.high_s is None:
        return (
            choice,
            (),
            f"When it ends cannot be said ({eta.words(found, facts.course.unit)}). Look again in a minute; {_bound(facts)}",
        )
    return (
        choice,
        (),
        f"It should be done in about {eta.span(found.left_s)}. Look again then; if it is still at work after {eta.span(2 * found.high_s)}, choose another option. {_bound(facts)}",
    )


def _bound(facts: Facts) -> str:
    return f"{len(facts.waits_behind())} sessions wait for it now."


def _ended(facts: Facts, says: str, *, by: tuple[ending.Rung, ...] = ("cancel", "terminate")) -> tuple[Step, ...]:
    """The guarded end of the session.  Raises: Refused where it may not be ended."""
    if facts.worker is None:
        return ()
    if facts.backend is None:
        raise Refused(f"pid {facts.worker.pid} has gone meanwhile. Nobody was signalled.")
    step = ending.step(
        facts.backend, by=by, patience_s=float(facts.given["end_patience_s"]), says=says,
        superusers=bool(facts.given["end_superusers"]), any_transaction=facts.commits,
    )  # fmt: skip
    # An undo of the steps behind this one is possible all the same; that its own work is gone stands among the warnings.
    return (replace(step, irreversible=""),)


def _backfill(facts: Facts) -> Way:
    says = "End it, and change the same rows in short batches beside the application; then finish the revision"
    if facts.worker is None:
        says = "Change the rows in short batches ahead of the migration; then finish the revision"
    costs = "what its transaction has done is lost; old values are kept in schema mend, and the table grows by as many row versions"
    take = facts.take
    if take.why_not or not take.values:
        return Choice("backfill", says, costs, False, take.why_not or "no statement can be taken over"), (), ""
    try:
        end = _ended(facts, "So that its work can be taken over, end")
        return Choice("backfill", says, costs), *_taken_over(facts, end)
    except Refused as error:
        return (
            Choice("backfill", says, costs, False, error.message.partition(" Nobody was signalled.")[0].rstrip(".")),
            (),
            "",
        )


def _taken_over(facts: Facts, end: tuple[Step, ...]) -> tuple[tuple[Step, ...], str]:
    """End, then the revision with the repair in place of its UPDATE; or the repair, and the revision's file made to pass over it."""
    repair = facts.take.repair(
        f"{facts.keeper.key}_1", at_most=long_work.ceiling(facts), workers=int(facts.given["workers"]), batch_ms=int(facts.given["batch_ms"])
    )  # fmt: skip
    done = rows.step(
        repair, says=f"Change the rows of {facts.table} in short batches: {', '.join(facts.take.values)}", live=facts.live, keeper=facts.keeper,
        rows_expected=round(facts.course.looks[-1].done + facts.course.looks[-1].left) if facts.course.looks else None,
    )  # fmt: skip
    analyzed = Step(
        f"Renew the statistics of {facts.table}", (Statement(f"analyze {facts.table}"),), locks=steps_locks(facts)
    )
    safe = (done, analyzed)
    if facts.halfway is None:
        return (*end, *safe), _ALONE
    if facts.seen is not None:
        finished, why_not = ways.finishing(facts.halfway, facts.seen, safe)
        if not why_not:
            return (*end, *finished), f"Then: {_upgrade(facts)}"
    if too_early := long_work.comes_after(facts):
        raise Refused(f"{too_early}. Nobody was signalled.")
    if facts.seen is None:
        return (*end, *safe), _ALONE
    patch = forward_file.passing_over(facts.halfway, facts.seen, facts.take)
    written = forward_file.steps(patch)
    how = (
        "the file is changed so that its statement finds nothing to do"
        if written
        else "but its own statement goes over all rows once more, see Prevent"
    )
    return (*end, *safe, *written), f"The revision is not finished here ({why_not}); {how}. Then: {_upgrade(facts)}"


_ALONE = (
    "Then run the migration again: it finds the rows changed already. Its revision is not known here: if it changes the same table "
    "before this statement, that was rolled back with it, and this comes too early; choose another option then."
)


def steps_locks(facts: Facts) -> tuple[Any, ...]:
    """ANALYZE waits for nobody's rows."""
    from mend.plan import Lock

    return (Lock(facts.table, "SHARE UPDATE EXCLUSIVE", "reads a sample of it"),)


def _index(facts: Facts) -> Way:
    says = "End it, and build the index that its statement lacks, without blocking; then run the migration again"
    costs = "what its transaction has done is lost; the index takes room and slows writes until `mend undo` drops it"
    wanted = facts.missing
    if wanted is None:
        return Choice("index", says, costs, False, "no index is missing that would help"), (), ""
    try:
        # CREATE INDEX CONCURRENTLY waits for every transaction that has written the table: with this one open it would never end.
        end = _ended(facts, "So that the index can be built, end")
    except Refused as error:
        return (
            Choice("index", says, costs, False, error.message.partition(" Nobody was signalled.")[0].rstrip(".")),
            (),
            "",
        )
    made = steps.make(
        [steps.Wanted(wanted.sql, f"Build the temporary index {wanted.identity}", (Change("index", wanted.identity, None, wanted.definition),))],
        live=facts.live, keeper=facts.keeper,
    )  # fmt: skip
    return (
        Choice("index", says, costs),
        (*end, *made),
        f"Then: {_upgrade(facts)} When it is done, `mend undo` of this run drops the index.",
    )


def _cancel(facts: Facts) -> Way:
    says, costs = "End it, and change nothing else", "all that its transaction has done is lost"
    if facts.worker is None:
        return Choice("cancel", says, costs, False, "nothing is at work"), (), ""
    try:
        end = _ended(facts, "End the migration:")
    except Refused as error:
        return (
            Choice("cancel", says, costs, False, error.message.partition(" Nobody was signalled.")[0].rstrip(".")),
            (),
            "",
        )
    return Choice("cancel", says, costs), end, "Split the revision as Prevent shows, before it is run again."


def _upgrade(facts: Facts) -> str:
    if facts.halfway is None:
        return "alembic upgrade head."
    return f"alembic -c {facts.halfway.project.alembic_ini} upgrade {'heads' if len(facts.halfway.past.heads) > 1 else 'head'}."


# -- afterwards ---------------------------------------------------------------------------------------------------------


def verify_with(made: Plan) -> Mapping[str, Any]:
    """The parameters for looking again: the same revision and statement, whoever is at work now."""
    return {
        "revision": made.evidence["revision"] or "",
        "pid": 0,
        "statement": int(made.evidence["statement"]),
        "watch_s": 0.0,
    }


def unmet(made: Plan, again: Diagnosis) -> Sequence[str]:
    """What the plan promised and a new diagnosis does not find."""
    facts: Facts = again.facts
    problems = []
    if facts.worker is not None and made.chosen != "wait":
        problems.append(f"a migration is at work again: {checks.worth_watching(facts.worker)}")
    if made.chosen == "backfill":
        if facts.left is None or facts.left.rows != 0:
            problems.append(f"rows that still need the change: {facts.left.says if facts.left else 'not known'}")
        if any("record revision" in step.says.lower() for step in made.steps) and not (
            facts.halfway and facts.halfway.stamped
        ):
            problems.append(f"the version row is not {made.evidence['revision']}")
    for expect in (e for step in made.steps for e in step.after if made.chosen == "index"):
        if facts.live.get((expect.kind, expect.identity)) != expect.definition:
            problems.append(f"index {expect.identity} is not there, or not valid")
    return problems


def _preventions(facts: Facts) -> tuple[Prevention, ...]:
    return forward_file.preventions(facts.halfway, facts.seen, facts.take, facts.table)

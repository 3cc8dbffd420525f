"""A migration takes too long: what it does, how far it is, when it will be done, and how the same is done without holding everybody up.

`plan` lets it run where it will be done soon; else it ends the statement (guarded) and changes the same rows in short batches, around which
the revision is finished; or it builds the index that the statement lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mend.diagnosis import Check, Diagnosis, Prevention, Site
from mend.errors import InvalidParameter, Refused
from mend.plan import Choice, Plan, Step
from mend.record import markup
from mend.record.markup import Shown
from mend.repairs import surroundings
from mend.slow import eta, forward_file, long_work, long_work_ways, looks, plots_eta
from mend.slow import long_work_checks as checks
from mend.slow.long_work import Facts

SLUG = "slow_migration"
OPTIONS = ("wait", "backfill", "index", "cancel")


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
    found = [
        long_work_ways.wait(facts),
        long_work_ways.backfill(facts),
        long_work_ways.index(facts),
        long_work_ways.cancel(facts),
    ]
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

"""A migration waits for a lock, or others wait for the migration: who is in the way, what it is, and the mildest way out.

Looking takes no lock that anybody could wait for, and each question gives up after a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mend.diagnosis import Check, Diagnosis, Site
from mend.errors import InvalidParameter, Refused
from mend.plan import Choice, Plan, Step
from mend.queue import draining, freeing, jam, jam_checks, plots_forest, waits
from mend.queue.backends import Backend
from mend.queue.forest import Forest
from mend.queue.jam import Facts
from mend.queue.jam_prevent import preventions
from mend.record.markup import Shown
from mend.repairs import halfway, surroundings

SLUG = "deadlock"


def diagnose(site: Site, *, option: str, settle_s: float = 0.0, prove: str = "", **given: Any) -> Diagnosis:
    """Look at who waits behind whom, at what is in the way, and at the migration.

    Parameters
    ----------
    option : one of ``freeing.OPTIONS``, or empty; ``retry`` also replays the pending revision
    settle_s : seconds to look on until the queue has drained; for Verify
    prove : a revision whose objects must be there if it is recorded; for Verify

    Returns
    -------
    Diagnosis with the checks environment, visibility, between, waits, roots, frees, prepared, migration, deadlocks.

    Reads: pg_locks, pg_stat_activity, catalogs, the version tables.  Writes: nothing.  Raises: InvalidParameter.
    """
    facts = jam.look(site, {**given, "option": option}, settle_s=settle_s)
    proving = bool(prove) and prove in facts.applied
    if proving or (not prove and freeing.needs_replay(facts, option)):
        facts = jam.replayed(site, facts)
    questions: tuple[Callable[[], Check], ...] = (
        partial(environment, site, facts),
        *(partial(one, facts) for one in (
            jam_checks.visibility, jam_checks.between, jam_checks.waiting, jam_checks.roots, jam_checks.frees,
            jam_checks.prepared, jam_checks.migration, jam_checks.deadlocks,
        )),
    )  # fmt: skip
    checks = tuple(surroundings.timed(ask) for ask in questions)
    return Diagnosis(checks, evidence(facts), facts, preventions(site, facts))


def watch(site: Site, **_: Any) -> Shown:
    """One look at the forest, as a picture and in words."""
    with waits.glance(site.target, site.run_id) as conn:
        return plots_forest.shown(waits.look(conn))


def environment(site: Site, facts: Facts) -> Check:
    """Does env.py lead to this database? Asked only where a step would run what the project says."""
    if facts.halfway is not None:
        return surroundings.environment(site, facts.halfway)
    says = facts.halfway_trouble or "No step runs the project's revision, so env.py is not run now."
    return Check(
        "environment",
        "Does env.py lead to this database?",
        "could_not_check" if facts.halfway_trouble else "healthy",
        says,
        "Both name the same database, or no step needs it.",
        why=facts.halfway_trouble,
    )


def evidence(facts: Facts) -> dict[str, Any]:
    """What the digest covers: exactly whom the plan is about.  Who else waits meanwhile moves, and is not covered."""
    forest = facts.forest or Forest()
    keys = [] if facts.given["option"] in ("wait", "retry") else jam.picked(facts)
    victims = {f"pid {key}": who.identity.words() for key in keys if (who := freeing.session(facts, key))}
    victims |= {
        f"prepared {forest.prepared[key].gid}": forest.prepared[key].words() for key in keys if key in forest.prepared
    }
    gone = {f"pid {pid}": "gone" for pid, who in facts.named.items() if who is None}
    found = halfway.evidence(facts.halfway) if facts.halfway else {"revision": facts.revision or None}
    return {**found, "victims": victims | gone}


def plan(diagnosis: Diagnosis, *, option: str, **_: Any) -> Plan:
    """The steps of one option; without one named, the mildest that the evidence justifies (see ``freeing.default``).

    Raises: InvalidParameter for an unknown option; Refused where the named one is not possible; WrongDatabase for a retry, unless
    env.py was proven to lead to the target.
    """
    if option and option not in freeing.OPTIONS:
        raise InvalidParameter(
            f"option is {option!r}. Nothing was changed. Write one of {', '.join(freeing.OPTIONS)}, or leave it empty."
        )
    facts: Facts = diagnosis.facts
    _require_named_are_there(facts)
    found = freeing.ways_out(facts)
    chosen = option or freeing.default(facts, found)
    if chosen == "none":
        return _plan(diagnosis, chosen, (), (), freeing.nothing(facts))
    choice, steps, further = next(way for way in found if way[0].option == chosen)
    if not choice.possible:
        raise Refused(f"{chosen} is not possible: {choice.why_not}. Nothing was changed, and nobody was signalled.")
    if chosen == "retry":
        surroundings.require_same_database(diagnosis)
    return _plan(diagnosis, chosen, tuple(c for c, _, _ in found), steps, further)


def _plan(
    diagnosis: Diagnosis, chosen: str, options: tuple[Choice, ...], steps: tuple[Step, ...], further: str
) -> Plan:
    unchecked = tuple(
        f"{c.question} Could not check: {c.why}" for c in diagnosis.checks if c.verdict == "could_not_check"
    )
    warned = tuple(diagnosis.check("between").says for _ in "x" if diagnosis.check("between").verdict == "found")
    return Plan(SLUG, {}, diagnosis.evidence, chosen, options, steps, further, (*unchecked, *warned))


def _require_named_are_there(facts: Facts) -> None:
    """Whoever was named must be there now, and be in somebody's way: a pid is given to another session once its own is gone."""
    forest = facts.forest or Forest()
    if facts.forest is None and (facts.named or facts.given["gid"]):
        raise Refused(f"It could not be seen who was named. {facts.trouble} Nobody was signalled.")
    for pid, who in facts.named.items():
        if who is None:
            raise Refused(
                f"pid {pid} is gone: no session has it now. Nobody was signalled. Look who is in the way now, and name that one, or nobody."
            )
        if pid not in forest.waiters and pid not in facts.holders:
            raise Refused(
                f"{who.named()} is in nobody's way now. Nobody was signalled. The pid may have been given to another session since; leave blockers empty, and the roots are taken."
            )
    gid = facts.given["gid"]
    if (
        gid
        and gid not in {one.gid for one in forest.prepared.values()}
        and gid not in set(facts.prepared.get("gid", ()))
    ):
        raise Refused(
            f"No transaction is prepared under the name {gid!r}: it was committed or rolled back. Nothing was changed."
        )


def verify_with(made: Plan) -> Mapping[str, Any]:
    """The parameters for looking again: whoever was ended, by pid; the queue gets time to drain."""
    patience_s = next(
        (float(step.arguments["patience_s"]) for step in made.steps if "patience_s" in step.arguments), 10.0
    )
    pids = [str(step.arguments["pid"]) for step in made.steps if step.kind == "end_backend"]
    return {
        "option": "",
        "blockers": ", ".join(pids),
        "gid": "",
        "revision": made.evidence["revision"] or "",
        "settle_s": patience_s,
        "prove": made.evidence["revision"] or "-",
    }


def unmet(made: Plan, again: Diagnosis) -> Sequence[str]:
    """What the plan promised and a new look does not find."""
    facts: Facts = again.facts
    if facts.forest is None:
        return (f"it could not be seen whether anybody waits: {facts.trouble}",)
    problems = [f"{who.label()} is still in its transaction" for step in made.steps if (who := _still(step, facts))]
    if facts.late:
        problems.append(draining.Left(facts.forest, float(facts.given["min_wait_s"])).words())
    if made.chosen == "retry" and made.evidence["revision"] not in facts.applied:
        problems.append(f"revision {made.evidence['revision']} is not recorded")
    if facts.halfway is not None and not facts.halfway.complete():
        missing = [one.statement.says for one in facts.halfway.seen if one.ran is not True]
        problems.append(
            f"revision {facts.halfway.revision.id if facts.halfway.revision else ''} is recorded, but this is missing: {'; '.join(missing)}"
        )
    return problems


def _still(step: Step, facts: Facts) -> Backend | None:
    """The session of a step, if it still has what it was ended for."""
    who = facts.named.get(int(step.arguments["pid"])) if step.kind == "end_backend" else None
    if who is None or who.backend_start != step.arguments["backend_start"]:
        return None
    same = who.xact_start == step.arguments["xact_start"] and who.state != "idle in transaction (aborted)"
    return who if same else None

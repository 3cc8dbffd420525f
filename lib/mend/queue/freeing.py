"""The ways to free a queue: wait, retry by short locks, cancel, terminate, roll back what is prepared; each with its steps, or why not.

Pure: from `jam.Facts` to the steps of a plan, and which of them the evidence justifies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mend.errors import Refused
from mend.plan import Choice, Step
from mend.queue import draining, ending, jam
from mend.queue.backends import Backend
from mend.queue.forest import Forest
from mend.queue.jam import Facts
from mend.repairs import ways

OPTIONS = ("wait", "retry", "cancel", "terminate", "rollback_prepared")
Way = tuple[Choice, tuple[Step, ...], str]


def ways_out(facts: Facts) -> list[Way]:
    """Every option, with its steps and what to do after them."""
    found = [_wait(facts), _retry(facts), _end(facts, "cancel"), _end(facts, "terminate"), _roll_back(facts)]
    if not facts.in_recovery:
        return found
    why_not = "this is a standby: what is done could not be recorded here, and nothing that is written can be changed here; look on the primary, or end the query by hand"
    return [(replace(choice, possible=False, why_not=why_not), (), "") for choice, _, _ in found]


def session(facts: Facts, key: int) -> Backend | None:
    return facts.named.get(key) or (facts.forest or Forest()).sessions.get(key)


def default(facts: Facts, found: Sequence[Way]) -> str:
    """The mildest option that helps.

    Whoever runs nothing can only be gone on with by its client: it is terminated. Whoever is at work is waited for, unless it was
    named: then its statement is cancelled. A prepared transaction is rolled back only if it was named. Where nobody waits, what was
    asked for with a deadlock's text, a revision or a pid is the migration itself: it is run again, by short locks.
    """
    possible = {choice.option for choice, _, _ in found if choice.possible}
    if not facts.late and not facts.named:
        return "retry" if would_retry(facts, "") and "retry" in possible else "none"
    forest, keys = facts.forest or Forest(), jam.picked(facts)
    if facts.given["gid"] and "rollback_prepared" in possible:
        return "rollback_prepared"
    sessions = [who for key in keys if (who := session(facts, key))]
    if sessions and len(sessions) == len(keys) and all(who.idle for who in sessions) and "terminate" in possible:
        return "terminate"
    at_work = ("dump", "concurrent index build or validation", "another migrator")
    if facts.named and "cancel" in possible and not any(forest.kind(key) in at_work for key in keys):
        return "cancel"
    return "wait" if "wait" in possible else "none"


def would_retry(facts: Facts, option: str) -> bool:
    """Whether the pending revision is what this is about: it was asked for, or nobody waits and something of it was named."""
    asked = option == "retry" or (
        not option and not facts.late and bool(facts.given["detail"] or facts.given["revision"] or facts.named)
    )
    return asked and bool(facts.pending) and facts.revision in facts.pending


def needs_replay(facts: Facts, option: str) -> bool:
    """Whether it must be known what the pending revision touches: for a retry, or because a named session may hold just that."""
    forest = facts.forest or Forest()
    quiet = any(who is not None and pid not in forest.waiters for pid, who in facts.named.items())
    return would_retry(facts, option) or (quiet and bool(facts.pending) and facts.revision in facts.pending)


def nothing(facts: Facts) -> str:
    if facts.forest is None:
        return f"It could not be seen who waits: {facts.trouble}"
    if facts.late:
        return "Nothing can be done from here: see the options."
    return "Nobody waits for a lock. " + (
        f"Revision {facts.pending[0]} is pending: run alembic upgrade, or make a plan with option=retry."
        if facts.pending
        else "Nothing is to be mended."
    )


def _wait(facts: Facts) -> Way:
    least_s, patience_s = float(facts.given["min_wait_s"]), float(facts.given["patience_s"])
    why_not = facts.trouble or ("" if facts.late else "nobody waits")
    choice = Choice(
        "wait",
        f"Look on, at most {patience_s:g} s, until the queue has drained",
        "nothing; whoever waits goes on waiting meanwhile",
        not why_not,
        why_not,
    )
    return choice, () if why_not else (draining.step(min_wait_s=least_s, patience_s=patience_s),), _then(facts)


def _retry(facts: Facts) -> Way:
    says = f"Run what is missing of the revision here: each lock is waited for {facts.given['lock_timeout_ms']} ms, then given up and asked for again with growing pauses, naming who holds it"
    costs = "its locks, for as long as the statements take; nobody queues behind a lock that is not granted for longer than that"
    found = facts.halfway
    waiting = [pid for pid in facts.migrators if pid in (facts.forest or Forest()).blockers]
    why_not = (
        "no revision is pending, or no Alembic project was named" if not facts.pending
        else f"a migration is at work already and waits (pid {waiting[0]}): end that one first, or let it go on" if waiting
        else facts.halfway_trouble
    )  # fmt: skip
    if why_not or found is None:
        return Choice("retry", says, costs, not why_not, why_not), (), ""
    choice, steps = next(((c, s) for c, s in ways.ways_out(found, blocked="") if c.option == "resume"), (None, ()))
    if choice is None or not choice.possible:
        return (
            Choice("retry", says, costs, False, choice.why_not if choice else "the revision is recorded already"),
            (),
            "",
        )
    return Choice("retry", says, costs), steps, _then(facts)


def _end(facts: Facts, by: str) -> Way:
    says, costs = _WORDS[by]
    forest = facts.forest or Forest()
    keys = [key for key in jam.picked(facts) if key not in forest.prepared]
    try:
        steps = tuple(_ended(facts, key, by) for key in keys)
        why_not = _too_many(facts, keys) or ("" if steps else "no session is in the way")
    except Refused as refused:
        steps, why_not = (), refused.message.partition(". Nobody was")[0]
    return Choice(by, says, costs, not why_not, why_not), () if why_not else steps, _then(facts)


_WORDS = {
    "cancel": ("Cancel the statement of who is in the way; its session lives", "that statement and its transaction: the application must do it again"),
    "terminate": ("End the session of who is in the way: cancel first where it runs something, then terminate", "its connection and its open transaction: the application must connect and do it again"),
}  # fmt: skip


def _ended(facts: Facts, key: int, by: str) -> Step:
    who = session(facts, key)
    if who is None:
        raise Refused(f"pid {key} is gone or not visible. Nobody was signalled.")
    return ending.step(
        who,
        by=("cancel",) if by == "cancel" else ("cancel", "terminate"),
        patience_s=float(facts.given["patience_s"]),
        advisory=(facts.forest or Forest()).by_advisory(key),
        superusers=bool(facts.given["end_superusers"]),
    )


def _too_many(facts: Facts, keys: Sequence[int]) -> str:
    most = int(facts.given["at_most"])
    return (
        f"{len(keys)} would have to end together for anybody to be freed, and at_most is {most}"
        if len(keys) > most
        else ""
    )


def _roll_back(facts: Facts) -> Way:
    says = "Roll back the prepared transaction that is in the way"
    costs = "its work, for ever: first ask whoever prepared it (its transaction manager) whether it was to be committed"
    forest = facts.forest or Forest()
    keys = [key for key in jam.picked(facts) if key in forest.prepared]
    why_not = "; ".join(why for key in keys if (why := jam.why_not_ended(facts, key))) or _too_many(facts, keys)
    why_not = why_not or ("" if keys else "no prepared transaction is in the way")
    steps = () if why_not else tuple(ending.prepared_step(forest.prepared[key]) for key in keys)
    return Choice("rollback_prepared", says, costs, not why_not, why_not), steps, _then(facts)


def _then(facts: Facts) -> str:
    waiting = [pid for pid in facts.migrators if pid in (facts.forest or Forest()).blockers]
    if waiting:
        return f"The migration of pid {waiting[0]} goes on by itself once it has its lock. Then look: alembic current."
    return "Then: alembic upgrade head." if facts.pending else ""

"""The ways out of a migration that takes too long: let it run, do the same in batches, build what it lacks, end it."""

from __future__ import annotations

from dataclasses import replace

from mend.batches import rows
from mend.database.catalog import Change
from mend.errors import Refused
from mend.plan import Choice, Lock, Statement, Step
from mend.queue import ending
from mend.repairs import steps, ways
from mend.slow import eta, forward_file, long_work
from mend.slow.long_work import Facts

Way = tuple[Choice, tuple[Step, ...], str]


def wait(facts: Facts) -> Way:
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


def backfill(facts: Facts) -> Way:
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
            Choice("backfill", says, costs, False, _briefly(error)),
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
        f"Renew the statistics of {facts.table}", (Statement(f"analyze {facts.table}"),), locks=_sampled(facts)
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


def _sampled(facts: Facts) -> tuple[Lock, ...]:
    """ANALYZE waits for nobody's rows."""
    return (Lock(facts.table, "SHARE UPDATE EXCLUSIVE", "reads a sample of it"),)


def index(facts: Facts) -> Way:
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
            Choice("index", says, costs, False, _briefly(error)),
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


def cancel(facts: Facts) -> Way:
    says, costs = "End it, and change nothing else", "all that its transaction has done is lost"
    if facts.worker is None:
        return Choice("cancel", says, costs, False, "nothing is at work"), (), ""
    try:
        end = _ended(facts, "End the migration:")
    except Refused as error:
        return (
            Choice("cancel", says, costs, False, _briefly(error)),
            (),
            "",
        )
    return Choice("cancel", says, costs), end, "Split the revision as Prevent shows, before it is run again."


def _briefly(refused: Refused) -> str:
    return refused.message.partition(" Nobody was signalled.")[0].rstrip(".")


def _upgrade(facts: Facts) -> str:
    return f"{facts.halfway.past.upgrade if facts.halfway else 'alembic upgrade head'}."

"""The ways out before a pending revision destroys anything: keep it, rename instead of dropping, rehearse.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mend.diagnosis import Prevention
from mend.errors import NotInvertible
from mend.loss import renaming, rescuing
from mend.loss.at_stake import Facts
from mend.loss.loss_room import Way
from mend.plan import Choice, Plan, Statement, Step
from mend.repairs import halfway, ways

OPTIONS = ("rescue", "rename", "rehearse")
_GIVES_WAY_MS = 500  # below deadlock_timeout: of two that wait for each other it is mend that lets go


def ways_out(facts: Facts, given: Mapping[str, Any], *, refused: str, reads: Sequence[str]) -> Sequence[Way]:
    """Every option, with its steps or with why it is not possible.

    ``refused``: why nothing may be copied.  ``reads``: who names what would be renamed, and fails then.
    """
    return (_rescue(facts, given, refused), _rename(facts, reads), _rehearse(facts))


def none(why: str) -> Sequence[Way]:
    """No option is possible."""
    return [(Choice(option, "", "", False, why), ()) for option in OPTIONS]


def preventions(facts: Facts) -> Sequence[Prevention]:
    """What would have kept this from being a question."""
    if not facts.own():
        return ()
    return (
        Prevention(
            "Drop in two deployments: first the code that reads and writes it goes, and the revision that drops it comes with a later release."
        ),
        Prevention(
            f"Run `mend plan data_loss` in CI against a copy of production before each deployment: exit code 2 says that revision {facts.revision} would destroy something."
        ),
    )


def _rescue(facts: Facts, given: Mapping[str, Any], refused: str) -> Way:
    says = "Run the pending revision with a verified copy of what it destroys, taken in the same transaction"
    costs = "room for the copies in schema mend; " + _waits(facts)
    why_not = not_rescuable(facts) or refused
    made: tuple[Step, ...] = ()
    if not why_not:
        made, why_not = _kept(facts, int(given.get("expiry_days") or 30))
    return Choice("rescue", says, costs, not why_not, why_not), made


def _rename(facts: Facts, reads: Sequence[str]) -> Way:
    says = "Run the pending revision, and rename what it would drop"
    told = f": {', '.join(reads[:5])}{f' and {len(reads) - 5} more' if len(reads) > 5 else ''}" if reads else ""
    costs = f"whoever reads or writes it by its old name fails at once, the application too{told}; the drop itself is left for later"
    why_not = not_rescuable(facts)
    made: tuple[Step, ...] = ()
    if not why_not:
        try:
            half, _ = renaming.renamed(facts.half)
            choice, made = next(way for way in ways.ways_out(half, blocked="") if way[0].option == "resume")
            why_not = choice.why_not or _not_whole(made)
        except (renaming.NotRenamable, NotInvertible) as error:
            why_not = str(error)
    return Choice("rename", says, costs, not why_not, why_not), () if why_not else made


def _rehearse(facts: Facts) -> Way:
    says = "Run what is pending on a copy in a scratch database, and change nothing here"
    why_not = "" if facts.pending else "no revision is pending"
    return Choice("rehearse", says, "reads the tables concerned; room on the scratch server", not why_not, why_not), ()


def _waits(facts: Facts) -> str:
    """Who waits while the copies are made, and about how long."""
    took = {table: rescuing.seconds(size) for table, size in facts.half.sizes.items()}
    long = [f"{table} (about {s:.0f} s)" for table, s in took.items() if s > rescuing.AT_ONCE_S]
    if long:
        return f"writers of {', '.join(long)} wait while it is copied, and everybody for a moment at the end"
    return f"whoever uses these tables waits while they are copied (about {max(0.1, sum(took.values())):.1f} s)"


def _kept(facts: Facts, days: int) -> tuple[tuple[Step, ...], str]:
    """The steps that run the revision and keep what it destroys; or why something would be lost after all."""
    try:
        half = rescuing.prepared(facts.half, days=days)
        found = ways.ways_out(half, blocked="; ".join(rescuing.obstacles(half)))
    except NotInvertible as error:
        return (), error.message
    choice, made = next(way for way in found if way[0].option == "resume")
    why_not = choice.why_not or _not_whole(made)
    return ((), why_not) if why_not else (tuple(_gives_way(step, half) for step in made), "")


def _not_whole(made: Sequence[Step]) -> str:
    """Why the steps would lose something after all."""
    if any(step.kind == "upgrade" for step in made):
        return (
            "upgrade() reads rows, so its SQL is known only as it runs and cannot share a transaction with the copies; "
            "let it send its statements without reading, or rename"
        )
    return next((step.irreversible for step in made if not step.reversible()), "")


def _gives_way(step: Step, half: halfway.Facts) -> Step:
    """Where a table is copied under a weaker lock than its loss needs, mend waits for the stronger one less long than a deadlock takes."""
    weaker = any(lock.mode == "SHARE ROW EXCLUSIVE" for lock in step.locks)
    large = any(table not in half.keeper.locked for table in half.sizes)
    if not (weaker and large and step.transactional and step.kind == "sql"):
        return step
    return replace(step, statements=(Statement(f"set local lock_timeout = '{_GIVES_WAY_MS}ms'"), *step.statements))


def not_rescuable(facts: Facts) -> str:
    """Why there is nothing to rescue, or not yet."""
    half = facts.half
    if not facts.revision or not facts.own():
        return "nothing that is pending destroys anything"
    if half.revision is None or half.stamped:
        return f"revision {facts.revision} is recorded already"
    missing = [one for one in half.past.parents(half.revision.id) if one not in half.past.ancestors(half.table.rows)]
    if missing:
        return (
            f"revision {facts.revision} is not the next one: first `alembic -c {half.past.alembic_ini} upgrade "
            f"{' '.join(missing)}`, which destroys nothing, or make a plan for what it destroys with the parameter revision"
        )
    return ""


def unmet(made: Plan, facts: Facts) -> Sequence[str]:
    """What the plan promised and a new look does not find."""
    if made.chosen not in ("rescue", "rename"):
        return ()
    return () if facts.half.stamped else (f"the version row is not {made.evidence['revision']}",)


def further(facts: Facts, chosen: str) -> str:
    """What to do next."""
    if not facts.own():
        return "Nothing that is pending destroys anything: run alembic upgrade."
    if not chosen and not_rescuable(facts):
        return f"Nothing was chosen: {not_rescuable(facts)}."
    if not chosen:
        return "Nothing was chosen, for not everything could be kept: see why not, and do not upgrade before what goes may go."
    if chosen == "rehearse":
        return "Nothing is applied by a rehearsal. Next: option rescue or rename."
    if chosen == "rename":
        return f"Later, when nobody has missed it: {'; '.join(_left(facts))}. Then: {facts.half.past.upgrade}"
    return f"Then: {facts.half.past.upgrade}"


def _left(facts: Facts) -> Sequence[str]:
    try:
        return renaming.renamed(facts.half)[1]
    except renaming.NotRenamable:
        return ()

"""The ways out of environment_mismatch: which differences get which option, the steps of each, and why one is not possible.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mend.errors import InvalidParameter, NotInvertible, Refused
from mend.mismatch import drift, reconcile
from mend.mismatch.drift import Difference
from mend.mismatch.drifted import Facts
from mend.mismatch.reconcile import Ground
from mend.plan import Choice, Step

OPTIONS = ("report", "revert", "repair", "adopt", "stamp")
EACH = ("report", "revert", "repair", "adopt")
_MANY = 500  # differences from which an option is tried only when it is named


def chosen(resolve: str, option: str, differences: Sequence[Difference]) -> dict[Difference, str]:
    """What is to be done about each difference.  Raises: InvalidParameter naming what was not understood, and what there is."""
    rest = option if option in EACH else "report"
    named = {one.name: one for one in differences}
    chosen = dict.fromkeys(differences, rest)
    for item in filter(None, (part.strip() for line in resolve.splitlines() for part in line.split(";"))):
        name, _, word = (part.strip() for part in item.rpartition("="))
        if word not in EACH:
            raise InvalidParameter(
                f"resolve has {item!r}. Nothing was changed. Write `kind identity=option`, options {', '.join(EACH)}, parted by ;."
            )
        several = [one for one in differences if one.name == name or one.object == name]
        if not several:
            known = ", ".join(list(named)[:5]) or "none"
            raise InvalidParameter(
                f"resolve names {name!r}, and nothing of that name differs. Nothing was changed. What differs: {known}."
            )
        chosen.update(dict.fromkeys(several, word))
    return chosen


def _ground(facts: Facts) -> Ground:
    return Ground(facts.live, facts.keeper, facts.major, facts.sizes)


def steps_of(chosen: Mapping[Difference, str], facts: Facts) -> tuple[Step, ...]:
    """What is repaired first, then what is taken back, then what is adopted.  Raises: NotInvertible, Refused."""
    of = {word: [one for one, picked in chosen.items() if picked == word] for word in EACH}
    ground = _ground(facts)
    made: tuple[Step, ...] = ()
    if of["repair"]:
        made += _repaired(of["repair"], facts, ground)
    if of["revert"]:
        made += reconcile.revert(of["revert"], ground.after(made))
    if of["adopt"]:
        if of["report"]:
            left = ", ".join(one.name for one in of["report"][:3])
            raise Refused(
                f"A revision for what was made by hand can be recorded only when nothing else differs, and {len(of['report'])} differences would "
                f"stay ({left}). Nothing was changed. Choose revert, repair or adopt for each of them."
            )
        made += _adopted(of["adopt"], facts, ground.after(made))
    return made


def _repaired(wanted: Sequence[Difference], facts: Facts, ground: Ground) -> tuple[Step, ...]:
    strange = [one.name for one in wanted if one.attribution != drift.NEVER_RAN]
    if strange:
        raise Refused(
            f"No operation that never ran makes {', '.join(strange[:3])}: repair runs operations. Nothing was changed. Choose revert or adopt for it."
        )
    return reconcile.repair(reconcile.never_ran(wanted, facts.drift), ground, reads=facts.expected.reads)


def _adopted(wanted: Sequence[Difference], facts: Facts, ground: Ground) -> tuple[Step, ...]:
    if facts.drift.other:
        raise Refused(
            "What differs from another database is no business of this history. Nothing was changed. Run without `other` to adopt."
        )
    if behind := [head for head in facts.past.heads if head not in facts.table.rows]:
        raise Refused(
            f"The database is not at {', '.join(behind)}, and a new revision comes after that. Nothing was changed. Upgrade first, or choose revert."
        )
    folder = facts.past.revisions[facts.table.rows[0]].path.parent
    return reconcile.adopt(
        wanted, ground, facts.drift.wanted, table=facts.table, folder=folder, home=facts.past.alembic_ini.parent
    )


_SAYS = {
    "report": ("Change nothing, and report", "the database stays as it is"),
    "revert": (
        "Make every object as its history makes it",
        "what was made by hand goes; content that goes along is kept in schema mend",
    ),
    "repair": (
        "Run the operations that never ran, with the SQL that the history sends",
        "what upgrade() does besides SQL does not happen",
    ),
    "adopt": (
        "Write a revision that makes what was made by hand, and record it here",
        "one more revision, which every other database gets",
    ),
    "stamp": (
        "Put the version row to the revision that the schema is really at",
        "nothing but the version row changes; upgrade then runs the rest",
    ),
}


def require_own(word: str, facts: Facts) -> None:
    """Raises: Refused where a word for everything would be about what may be another project's."""
    strange = [one.name for one in facts.drift.differences if one.attribution == drift.OUT_OF_BAND]
    if word in ("revert", "adopt") and facts.shared and strange:
        raise Refused(
            f"Another project's version table is in the same schema ({', '.join(facts.shared)}), so what is out of band may be that project's "
            f"({', '.join(strange[:3])}). Nothing was changed. Choose for each with the parameter resolve."
        )


def way(word: str, facts: Facts, revision: str, *, named: bool) -> tuple[Choice, tuple[Step, ...]]:
    """One option for every difference, with why it is not possible; ``named``: the operator has chosen it."""
    says, costs = _SAYS[word]
    differences = facts.drift.differences
    made: tuple[Step, ...] = ()
    if word not in ("report", "stamp") and len(differences) > _MANY and not named:
        return Choice(word, says, f"{costs}; with {len(differences)} differences it is tried only when it is named"), ()
    try:
        require_own(word, facts)
        if word == "stamp":
            made = (_stamped(facts, revision),)
        else:
            made = steps_of({} if word == "report" else dict.fromkeys(differences, word), facts)
        why_not = "" if word in ("report", "stamp") or made else "nothing differs"
    except (NotInvertible, Refused) as error:
        why_not = error.message.replace(" Nothing was changed.", "").rstrip(".")
    return Choice(word, says, costs, not why_not, why_not), made


def _stamped(facts: Facts, revision: str) -> Step:
    """Raises: Refused unless the schema is exactly what one revision, and only one, makes."""
    fits = [fit for fit in facts.drift.fits if fit.differences == 0]
    ran = facts.expected.ran
    if facts.drift.other or not facts.drift.fits:
        raise Refused("where the history stands is not known in this comparison")
    if revision:
        wanted = facts.past.get(revision).id
        fits = [fit for fit in fits if fit.revisions and ran[fit.revisions - 1] == wanted]
    best = facts.drift.best
    if not fits:
        near = (
            f"; the nearest is {ran[best.revisions - 1] if best.revisions else 'no revision'}, with {best.differences}"
            if best
            else ""
        )
        raise Refused(f"something differs from {revision or 'every revision'}{near}. Take that back first")
    if any(fit.revisions == facts.expected.own for fit in fits) and not revision and not facts.unknown:
        raise Refused("the schema is what the recorded revision makes")
    if len(fits) > 1:
        names = ", ".join(ran[fit.revisions - 1] if fit.revisions else "none" for fit in fits)
        raise Refused(
            f"the catalog is the same after each of {names}: they differ in rows only. Say which with the parameter revision"
        )
    rows = drift.heads(ran[: fits[0].revisions], facts.parents())
    if set(rows) == set(facts.table.rows):
        raise Refused("that is what the version table says already")
    return reconcile.recorded(facts.table, rows)

"""A history that forked or broke, or version rows that do not fit it: what the graph is, what the branches do, and the ways out.

`diagnose` reads the files, the version tables and git, and walks the branches in scratch databases; `plan` picks one of the ways
that `conflict_ways` found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mend.conflict import conflict_checks, conflict_ways, conflicts, plots_graph
from mend.conflict.conflict_checks import Seen
from mend.diagnosis import Check, Diagnosis, Prevention, Site
from mend.errors import InvalidParameter, Refused
from mend.plan import Plan
from mend.record.markup import Shown
from mend.repairs import surroundings

SLUG = "migration_conflict"


def diagnose(site: Site, *, revision: str, onto: str, file: str, message: str, also: str, **_: Any) -> Diagnosis:
    """Read the revision graph, the version rows and git, and walk the branches.

    Parameters
    ----------
    revision : heads to join (comma separated), the branch to move, or the missing revision that is meant; empty: what is found
    onto : the parent of what is moved or stands for a lost revision, or the revision to set an unknown row to
    file : of two files with one id, the one to rename
    message : of the merge revision
    also : further targets, comma separated: what one of them has is not moved

    Returns
    -------
    Diagnosis with the checks environment, graph, heads, version_rows, version_tables, git, elsewhere, shared, order, proof, sessions.

    Reads: the catalogs, the version tables, the project's files, git.  Writes: nothing but scratch databases.
    Raises: InvalidParameter, ProjectBroken, PrivilegeMissing.
    """
    if site.project is None:
        raise InvalidParameter(
            "No Alembic project was named. Nothing was changed. Pass alembic_ini, or set it for this target in mend.toml."
        )
    said = {"revision": revision, "onto": onto, "file": file, "message": message, "also": also}
    facts = conflicts.look(site, site.project, said)
    seen = Seen(facts, conflict_ways.ways(facts))
    questions: tuple[Callable[[], Check], ...] = (
        partial(surroundings.environment, site, facts),
        partial(conflict_checks.graph_is_whole, facts),
        partial(conflict_checks.heads, facts),
        partial(conflict_checks.version_rows, facts),
        partial(conflict_checks.version_tables, facts),
        partial(conflict_checks.git_has, facts),
        partial(conflict_checks.elsewhere, facts),
        partial(conflict_checks.shared, facts),
        partial(conflict_checks.order, facts),
        partial(conflict_checks.proof, facts),
        partial(surroundings.sessions, site, [facts.table.quoted()]),
    )
    checks = tuple(surroundings.timed(question) for question in questions)
    return Diagnosis(checks, conflicts.evidence(facts), seen, _preventions(facts))


def draw(diagnosis: Diagnosis, name: str) -> Shown | None:
    """The picture that belongs to a check; the check's rows say the same."""
    seen: Seen | None = diagnosis.facts
    picture = seen.facts.pictures.get(name) if seen else None
    return plots_graph.drawn(picture) if picture else None


def plan(diagnosis: Diagnosis, *, option: str, **_: Any) -> Plan:
    """The steps of one option; without one named, of the first that is needed, possible and proven.

    Raises: InvalidParameter for an unknown option; Refused where the named one is not possible; WrongDatabase unless env.py was
    proven to lead to the target.
    """
    seen: Seen = diagnosis.facts
    if option and option not in conflict_ways.OPTIONS:
        raise InvalidParameter(
            f"option is {option!r}. Nothing was changed. Write one of {', '.join(conflict_ways.OPTIONS)}, or leave it empty."
        )
    possible = [(choice, steps) for choice, steps in seen.ways if choice.possible]
    chosen = option or next((c.option for c, _ in possible if conflict_ways.by_itself(seen.facts, c.option)), "")
    choice, steps = next(((c, s) for c, s in seen.ways if c.option == chosen), (None, ()))
    if steps:
        surroundings.require_same_database(diagnosis)
    if choice is not None and not choice.possible:
        raise Refused(
            f"{option} is not possible: {choice.why_not}. Nothing was changed. Possible: {', '.join(c.option for c, _ in possible) or 'none'}."
        )
    return Plan(
        slug=SLUG,
        target={},
        evidence=dict(diagnosis.evidence) | {"end": _end(seen, chosen)},
        chosen=chosen or "none",
        options=tuple(c for c, _ in seen.ways),
        steps=steps,
        next=_next(seen, chosen, diagnosis),
        warnings=conflict_checks.warnings(seen.facts, diagnosis, chosen),
    )


def _end(seen: Seen, chosen: str) -> str:
    """The revision that must be there, or the row, once the plan was applied."""
    fork = seen.facts.fork
    return fork.end if chosen == "merge" and fork else ""


def _next(seen: Seen, chosen: str, diagnosis: Diagnosis) -> str:
    facts = seen.facts
    heads = "head" if len(facts.past.heads) == 1 or chosen in ("merge", "reparent") else "heads"
    retry = f"alembic -c {facts.past.alembic_ini} upgrade {heads}"
    if chosen:
        commit = "" if chosen in ("set_row", "delete_row") else "commit the changed file, and "
        return f"Then {commit}diagnose again: more may be wrong. When nothing is: {retry}"
    if diagnosis.verdict() == "healthy":
        return "The history is whole and fits the version rows: there is nothing to mend."
    by_hand = conflict_checks.by_hand(facts)
    possible = [c.option for c, _ in seen.ways if c.possible]
    named = f"Possible when you name it as option: {', '.join(possible)}." if possible else ""
    rest = "" if by_hand or possible else f"Nothing needs a plan. Go on with: {retry}"
    return " ".join(filter(None, [by_hand, named, rest]))


def _preventions(facts: conflicts.Facts) -> tuple[Prevention, ...]:
    says = [
        "In CI, on the merged result of every branch: `mend lint -a alembic.ini` exits with 2 where heads stand apart, a parent is missing or an id is there twice.",
        "Let one file hold the newest revision id, changed with every revision: git then shows a merge conflict where two branches add one.",
    ]
    if facts.missing or facts.reused:
        says.append(
            "Never delete or change a revision file that a database has had: squash by a new base, with the old ids kept as stubs."
        )
    if facts.rows_that_are(conflicts.UNKNOWN):
        says.append("Give each preview of a branch a database of its own.")
    return tuple(Prevention(one) for one in says)


def verify_with(made: Plan) -> Mapping[str, Any]:
    """The parameters for looking again: whatever is there now."""
    return {"revision": "", "onto": "", "file": "", "option": ""}


def unmet(made: Plan, again: Diagnosis) -> Sequence[str]:
    """What the plan promised and a new diagnosis does not find."""
    facts: conflicts.Facts = again.facts.facts
    return conflict_checks.unmet(made.chosen, str(made.evidence.get("end") or ""), dict(made.evidence), facts)

"""What every runbook looks at besides its own questions: where env.py leads, and who is at work on the tables.  Reads only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import pandas as pd

from mend.database import queries, sqltext
from mend.diagnosis import Check, Diagnosis, Site, Verdict
from mend.errors import MendError, WrongDatabase
from mend.histories.project import Environment
from mend.repairs import halfway

_MAINTAINED = "mend:"


def timed(question: Callable[[], Check]) -> Check:
    """The answer, with how long it took."""
    started = time.monotonic()
    check = question()
    return replace(check, seconds=time.monotonic() - started)


class Probed(Protocol):
    """Facts that know where env.py leads, or why that is not known."""

    @property
    def environment(self) -> Environment | MendError: ...


def environment(site: Site, facts: Probed | None) -> Check:
    """Does the project's env.py lead to this target?"""
    asks = partial(
        Check,
        name="environment",
        question="Does env.py lead to this database?",
        healthy_when="Both lines name the same system identifier and database.",
    )
    if facts is None:
        return asks(verdict="healthy", says="No Alembic project was named, so none is run.")
    if isinstance(facts.environment, MendError):
        return asks(verdict="could_not_check", says="It could not be proven.", why=facts.environment.message)
    frame = pd.DataFrame([_place("target", site.identity), _place("env.py", facts.environment)])
    if facts.environment.system_identifier is None:
        why = "the role that env.py uses may not run pg_control_system(): grant EXECUTE on it"
        return asks(verdict="could_not_check", says="It could not be proven.", frame=frame, why=why)
    same = halfway.same_database(site.identity, facts.environment)
    says = (
        "env.py leads to this database."
        if same
        else f"env.py leads to {facts.environment.database}, which is not this target."
    )
    return asks(verdict="healthy" if same else "found", says=says, frame=frame)


def _place(who: str, where: Any) -> dict[str, Any]:
    return {
        "who": who,
        "system_identifier": where.system_identifier,
        "database": where.database,
        "database_oid": where.database_oid,
        "role": where.role,
    }


def sessions(site: Site, relations: Iterable[str]) -> Check:
    """Is a migration still running, or does something hold what the repair of these tables needs?"""
    with site.target.reading(site.run_id) as conn:
        frame = queries.frame(conn, "surroundings/sessions", relations=sorted(relations), own=_MAINTAINED)
    frame["query"] = frame["query"].map(sqltext.shape)  # other people's statements hold values
    hidden = not site.identity.superuser and (frame["query"] == "<insufficient privilege>").any()
    verdict: Verdict = "found" if len(frame) else "healthy"
    says = (
        f"{len(frame)} sessions run DDL, sit in a transaction, or hold locks on its tables."
        if len(frame)
        else "No session is in the way."
    )
    why = "some queries of other roles are hidden: grant pg_monitor" if hidden else ""
    return Check(
        "sessions",
        "Is a migration still running, or a session in the way?",
        "could_not_check" if hidden else verdict,
        says,
        "There are 0 sessions of the migration, and 0 hold a lock that the missing operations need.",
        frame,
        frame.attrs["sql"],
        why,
    )


def require_same_database(diagnosis: Diagnosis) -> None:
    """Raises: WrongDatabase unless env.py was proven to lead to the target."""
    check = diagnosis.check("environment")
    if check.verdict == "healthy":
        return
    raise WrongDatabase(
        f"{check.says} {check.why} Nothing was changed. Point env.py at the target (usually an environment variable or sqlalchemy.url), or name the right target."
    )

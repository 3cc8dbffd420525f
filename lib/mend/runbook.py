"""What a notebook imports: opens a run, shows, decides, applies, verifies and records.

The same cells run headless and in JupyterLab.  Headless, `dry_run` and `approve` decide; in JupyterLab the approval box does.
Which of plan, apply, undo or resume a run is comes from the command that started it (MEND_ACTION, MEND_OF).
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from mend import plan as plans
from mend.batches import giveback
from mend.change.writer import Writer
from mend.database import catalog, parameters
from mend.database import target as targets
from mend.diagnosis import Check, Diagnosis, Site
from mend.errors import (
    InvalidParameter,
    MendError,
    NotApproved,
    OutcomeUnknown,
    PlanConsumed,
    PlanIsStale,
    ProjectBroken,
    Refused,
    ReplayFailed,
    VerificationFailed,
)
from mend.execution import aftermath, execute
from mend.histories.project import Project, find_python
from mend.notebook import capture, opening
from mend.plan import Plan
from mend.queue import ending
from mend.record import account, archive, ledger, lineage, show
from mend.record.markup import Shown, joined

_WATCHED = 20_000  # characters of one look that the journal keeps


class Form:
    """The parameters, shown; in JupyterLab as a form that mirrors them.  ``open()`` reads it."""

    def __init__(self, slug: str, given: Mapping[str, Any]) -> None:
        self.slug = slug
        self.given = parameters.validated(slug, given)
        self.fields: Any = None
        if opening.interactive():
            from mend.notebook import widgets

            self.fields = widgets.parameter_form(parameters.of(slug), self.given)
            capture.display(self.fields.widget)
        else:
            capture.display(show.parameters(parameters.of(slug), self.given))

    def values(self) -> dict[str, Any]:
        """The parameters as they stand now, validated again."""
        return parameters.validated(self.slug, self.fields.values()) if self.fields else self.given

    def open(self) -> Run:
        """Open the run with these parameters; shows the target's card.

        Raises: TargetUnknown, TargetUnreachable, LoginRefused, ProjectBroken; nothing has been changed then.
        """
        return Run(self.slug, self.values())


def form(slug: str, **given: Any) -> Form:
    """Show the parameters of a runbook.  Raises InvalidParameter for an unknown name or a wrong type."""
    capture.start()
    return Form(slug, given)


def _recorded(method: Callable[..., None]) -> Callable[..., None]:
    """Whatever a section raises is shown and journaled before it stops the notebook."""

    @functools.wraps(method)
    def wrapper(self: Run, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except MendError as error:
            self.fail(error)
            raise
        except Exception as error:
            self.fail(
                MendError(f"Unexpected {type(error).__name__}: {error}. The journal says which steps ran. Report this.")
            )
            raise

    return wrapper


class Run:
    """One execution of one runbook."""

    def __init__(self, slug: str, values: Mapping[str, Any]) -> None:
        self.slug, self.values = slug, dict(values)
        self.action = opening.action()
        self._progress = opening.progress()
        self.mode: ModuleType = importlib.import_module(f"mend.modes.{slug}")
        self.record, self.sealed_by_parent = opening.record(slug, self.values, self.action)
        self.journal = self.record.journal
        self.diagnosis: Diagnosis | None = None
        self.plan: Plan | None = None
        self.outcome = ""
        self.done = False
        self._open()

    @property
    def run_id(self) -> str:
        """The name of this run and of its folder under outputs/."""
        return self.record.run_id

    @_recorded
    def _open(self) -> None:
        opening.quiet_errors()
        self._start_lab_incident()
        self.target = targets.resolve(self.values["target"])
        self.identity = self.target.identity()
        self.journal.append("target_seen", {"name": self.target.name} | targets.card(self.identity))
        with self.target.reading(self.run_id) as conn:
            last = ledger.last(conn, self.target.settings.schema_name)
        self.last_run = last.run_id if last else ""
        self.site = Site(self.target, self.identity, self._project(), self._progress, self.run_id, self.last_run)
        capture.display(show.card(self.identity, self.target.name, lab=self.target.name == "lab"))

    def _start_lab_incident(self) -> None:
        """Without any parameter a runbook runs on its own practice incident."""
        if self.values["target"] != "lab":
            return
        from mend import lab

        current = lab.current()
        if current is None or current.slug != self.slug:
            if current is not None and self.action != "plan":
                raise Refused(
                    f"The lab holds the incident {current.slug}, not {self.slug}. Nothing was changed. Run `mend lab start {self.slug}`."
                )
            current = lab.start(self.slug, progress=self._progress)
        self.values["alembic_ini"] = self.values["alembic_ini"] or str(current.alembic_ini)

    def _project(self) -> Project | None:
        ini = self.values["alembic_ini"] or str(self.target.settings.alembic_ini or "")
        if not ini:
            return None
        self.values["alembic_ini"] = ini
        configured = self.values.get("python") or str(self.target.settings.python or "")
        return Project(Path(ini).resolve(), find_python(Path(ini), configured), None)

    @_recorded
    def diagnose(self) -> None:
        """Run every check and show the verdicts."""
        self.diagnosis = self._diagnosed_again() if self.action in ("undo", "resume") else self._diagnosed()
        for check in self.diagnosis.checks:
            self.journal.append("check", check.as_record(), server_time="")
        for kind, rows in getattr(self.diagnosis.facts, "tables", dict)().items():
            self.journal.append(kind, {"rows": rows})
        capture.display(show.verdicts(self.diagnosis))

    def _diagnosed(self, **overrides: Any) -> Diagnosis:
        found: Diagnosis = self.mode.diagnose(self.site, **(self._mode_values() | overrides))
        return found

    def _diagnosed_again(self) -> Diagnosis:
        """With the applied plan's revision.  An undo goes on without a diagnosis: the old code may be back, its revision file gone, or
        what the plan was about have another name by now, which its steps say better."""
        carried_on = self.mode.verify_with((self._applied.undoes or self._applied).plan)
        try:
            return self._diagnosed(**carried_on)
        except (ProjectBroken, ReplayFailed, InvalidParameter) as error:
            if not self._taking_back:
                raise
            check = Check(
                "diagnosis",
                question="What does the diagnosis say?",
                verdict="could_not_check",
                says="It could not be made.",
                healthy_when="It can be made; an undo does not need it.",
                why=error.message,
            )
            return Diagnosis((check,), {})

    def _mode_values(self) -> dict[str, Any]:
        """The mode's own parameters, without those that every runbook has."""
        return {key: value for key, value in self.values.items() if key not in parameters.COMMON}

    @_recorded
    def answer(self, name: str) -> None:
        """Show one check: verdict, rows, what healthy looks like, the SQL behind it, and the mode's picture of it where it draws one."""
        asked = name if self._seen().facts is not None else "diagnosis"
        capture.display(show.check(self._seen().check(asked)))
        draw = getattr(self.mode, "draw", None)
        if draw and (drawn := draw(self._seen(), name)):
            capture.display(drawn)

    @_recorded
    def watch(self) -> None:
        """Show how it stands at this moment; in JupyterLab with a switch that looks again every few seconds.  The first look is journaled."""
        first = self._look()
        self.journal.append("watched", {"says": first.text[:_WATCHED]})
        if opening.interactive():
            from mend.notebook import widgets

            capture.display(first)
            capture.display(widgets.live(self._look))
        else:
            capture.display(first)

    def _look(self) -> Shown:
        """One look of the mode; one that fails says so, and the next may do better."""
        try:
            shown: Shown = self.mode.watch(self.site, **self._mode_values())
            return shown
        except MendError as error:
            return show.error(error)

    def _seen(self) -> Diagnosis:
        if self.diagnosis is None:
            raise InvalidParameter("Nothing was diagnosed yet. Nothing was changed. Run the cells above in order.")
        return self.diagnosis

    @_recorded
    def decide(self) -> None:
        """Make the plan from the diagnosis (or take the one to undo or resume), show it, and keep it."""
        self._seen()
        if self._began():
            return
        self.plan = {"undo": self._undo_plan, "resume": self._resumed_plan}.get(self.action, self._fresh_plan)()
        self.record.write_plan(self.plan)
        self.journal.append(
            "planned", {"digest": self.plan.digest(), "chosen": self.plan.chosen, "steps": len(self.plan.steps)}
        )
        capture.display(show.plan(self.plan))

    def _began(self) -> bool:
        """Whether this run sent its plan already; then its plan and its way back stay as they are."""
        began = bool(self.journal.of("apply_started"))
        if began:
            text = f"This run applied its plan already; its record keeps it. Take it back with: mend undo {self.run_id}. For a new plan, open a new run: run the cell with form.open() again."
            capture.display(show.outcome(text, "applied"))
        return began

    def _fresh_plan(self) -> Plan:
        try:
            plan: Plan = self.mode.plan(self._seen(), **self._mode_values())
        except Refused as refused:
            raise self._stale_instead(refused) from refused
        evidence = dict(plan.evidence) | {"last_run": self.last_run or None}
        return replace(plan, evidence=evidence, target=self.identity.key())

    def _stale_instead(self, refused: Refused) -> Refused:
        """Where the approved plan is no longer possible, what changed since is the better answer."""
        approved = lineage.approved_plan(self.values["approve"])
        lines = (
            plans.differences(approved.evidence, dict(self._seen().evidence) | {"last_run": self.last_run or None})
            if approved
            else []
        )
        return _stale([*lines, refused.message]) if lines else refused

    @functools.cached_property
    def _applied(self) -> lineage.Applied:
        """The application of a plan that this run undoes or resumes."""
        of = os.environ.get("MEND_OF", "")
        try:
            return (lineage.to_undo if self.action == "undo" else lineage.to_resume)(of)
        except Refused:
            if self.action == "resume":
                self._seal_left([archive.find(of)])
            raise

    def _seal_left(self, records: Sequence[archive.Record]) -> None:
        """Seal the records of runs that died: nothing more will be added to them."""
        for record in records:
            if not record.summary():
                record.journal.append("left", {"by": self.run_id})
                archive.seal(record, secrets=self.target.secrets())

    def _undo_plan(self) -> Plan:
        return aftermath.undo_plan(self.target, self.identity, self._applied)

    def _resumed_plan(self) -> Plan:
        return aftermath.resumed_plan(self.target, self.identity, self._applied)

    @property
    def _taking_back(self) -> bool:
        """Whether this run is an undo, or goes on with one."""
        return self.action == "undo" or (self.action == "resume" and self._applied.undoes is not None)

    @_recorded
    def act(self) -> None:
        """Apply the plan if it is approved; in JupyterLab, show the approval box."""
        if self._began():
            return
        plan = self._planned()
        approved = bool(self.values["approve"]) and not self.values["dry_run"] and self.action not in ("undo", "resume")
        if approved:
            self._require_approved(plan)
        if not plan.steps:
            self.outcome = (
                "planned"
                if self._seen().verdict() == "found"
                else "completed"
                if self._seen().verdict() == "healthy"
                else "could_not_check"
            )
            capture.display(show.outcome(plan.next or "Nothing to apply.", self.outcome))
        elif self.action in ("undo", "resume"):
            self._write(how="command")
        elif approved:
            self._write(how="parameter")
        elif opening.interactive():
            self._approval_box(plan)
        else:
            self.outcome = "planned"
            capture.display(
                show.outcome(
                    f"Nothing was applied: this was a dry run. To apply: mend apply {self.run_id} --approve {plan.digest()}",
                    "planned",
                )
            )
        if (
            not self.values["dry_run"]
            and not self.values["approve"]
            and plan.steps
            and self.action == "plan"
            and not opening.interactive()
        ):
            raise NotApproved(
                f"dry_run is False, but no plan was approved. Nothing was changed. Review the plan above, then pass approve={plan.digest()}."
            )

    def _planned(self) -> Plan:
        if self.plan is None:
            raise InvalidParameter("There is no plan yet. Nothing was changed. Run the cells above in order.")
        return self.plan

    def _require_approved(self, plan: Plan) -> None:
        """What was reviewed is what runs: the digest of the plan just made must be the approved one.

        Raises: PlanIsStale with every difference.
        """
        if self.values["approve"] == plan.digest():
            return
        approved = lineage.approved_plan(self.values["approve"])
        if approved is None:
            raise NotApproved(
                f"No plan with digest {self.values['approve']} is in the archive. Nothing was changed. The plan made now is {plan.digest()}: review it."
            )
        raise _stale(plans.what_changed(approved, plan))

    def _approval_box(self, plan: Plan) -> None:
        from mend.notebook import widgets

        def apply(progress: Callable[[str], None]) -> Shown:
            if self.done:  # a second click is no failure of the run
                raise PlanConsumed("This run applied its plan already. Nothing was changed now. Run the cells below.")
            self._progress = progress
            self._apply_typed(plan)
            progress("verifying")
            self.verify()  # at once: whoever closes the page now leaves a record that says how it ended
            self._close()
            ended = "Applied, and verified on a new connection. Run the cells below to read it."
            return joined(self._drawn_pace(), show.outcome(ended, self.outcome))

        capture.display(widgets.approval(database=self.identity.database, digest=plan.digest(), apply=apply))

    @_recorded
    def _apply_typed(self, shown: Plan) -> None:
        """The plan may have stood on the screen for an hour: look again, and refuse if the database moved."""
        self._progress("looking again")
        self.diagnosis = self._diagnosed()
        fresh = self._fresh_plan()
        if fresh.digest() != shown.digest():
            raise _stale(plans.what_changed(shown, fresh))
        self._write(how="typed")

    def _write(self, *, how: str) -> None:
        plan = self._planned()
        self.journal.append(
            "approved", {"digest": plan.digest(), "approver": self.record.opened["who"]["os_user"], "how": how}
        )
        self._keep_catalog(lineage.BEFORE)
        writer = Writer(
            self.target,
            self.identity,
            self.run_id,
            self.journal,
            self._progress,
            lock_timeout_ms=int(self.values.get("lock_timeout_ms") or self.target.settings.lock_timeout_ms),
            statement_timeout_ms=self.target.settings.statement_timeout_ms,
            project=self.site.project,
        )
        try:
            self._execute(writer, plan)
        finally:
            self._show_pace()
        self.done = True
        self._keep_catalog(lineage.AFTER)
        capture.display(show.outcome(f"All {len(plan.steps)} steps of plan {plan.digest()} ran.", "applied"))

    def _execute(self, writer: Writer, plan: Plan) -> None:
        if self.action == "resume":
            execute.resume(writer, plan, aftermath.outcomes(self.target, self._applied))
            self._seal_left([one for one in self._applied.runs if one.run_id != self.run_id])
        elif self.action == "undo":
            execute.undo(writer, plan)
        else:
            execute.apply(writer, plan)

    def _show_pace(self) -> None:
        """How the batches went, also of a step that failed."""
        with suppress(MendError):  # of a damaged journal the error that follows tells
            if drawn := self._drawn_pace():
                capture.display(drawn)

    def _drawn_pace(self) -> Shown | None:
        if not self.journal.of("batch_sample"):
            return None
        from mend.record import plots

        return plots.pace(self.journal.events())

    def _keep_catalog(self, name: str) -> None:
        """The catalog as it stands; not where the plan makes no object: to read definitions could wait behind who is to be ended."""
        if self.plan and all(step.kind in (*ending.KINDS, "wait") for step in self.plan.steps):
            return
        with self.target.reading(self.run_id) as conn:
            lineage.write_snapshot(self.record, name, catalog.snapshot(conn))

    @_recorded
    def verify(self) -> None:
        """Look again, on a new connection, and fail loudly unless the database is what the plan promised."""
        if not self.done:
            capture.display(show.outcome("Nothing was applied, so there is nothing to verify.", "planned"))
            return
        problems, checks = self._verify_undo() if self._taking_back else self._verify_plan()
        found: dict[str, Any] = {"healthy": not problems, "problems": problems, "checks": checks}
        if self._taking_back and (left := self._left_alone()):
            found["conflicts"] = left
        self.journal.append("verified", found)
        if problems:
            further = (
                "Make a new plan to see what is left."
                if self._taking_back
                else f"`mend undo {self.run_id}` takes them back."
            )
            raise VerificationFailed(
                "The steps ran, but the database is not what the plan promised: " + "; ".join(problems) + f". {further}"
            )
        self.outcome = "completed"
        said = account.conflicts_said(found.get("conflicts", []))
        capture.display(show.outcome(f"Verified on a new connection. {said}".rstrip(), self.outcome))

    def _verify_plan(self) -> tuple[list[str], list[dict[str, Any]]]:
        plan = self._planned()
        again = self._diagnosed(**self.mode.verify_with(plan))
        for check in again.checks:
            capture.display(show.check(check, asks=True))
        return list(self.mode.unmet(plan, again)), [check.as_record(sample=5) for check in again.checks]

    def _left_alone(self) -> list[dict[str, Any]]:
        """The rows that were not given back, because somebody had changed them: they are part of how an undo ended."""
        with self.target.reading(self.run_id) as conn:
            return giveback.left_alone(conn, self._planned())

    def _verify_undo(self) -> tuple[list[str], list[dict[str, Any]]]:
        """The catalog must be what it was before the run that was undone."""
        undo = self._applied if self.action == "resume" else lineage.to_resume(self.run_id)
        return aftermath.left_by_undo(self.target, undo, run_id=self.run_id), []

    @_recorded
    def undo(self) -> None:
        """Show how this run is taken back, or why it cannot be."""
        capture.display(show.undo(self._planned(), self.run_id))

    @_recorded
    def prevent(self) -> None:
        """Show what would have stopped the incident."""
        for prevention in self._seen().prevent:
            self.journal.append("prevented", {"says": prevention.says, "diff": prevention.diff})
        capture.display(show.prevention(list(self._seen().prevent)))

    def fail(self, error: MendError) -> None:
        """Show and journal an error, and close the run with its outcome."""
        kind = "refused" if isinstance(error, Refused) else "failed"
        facts = {"differences": error.facts["differences"]} if "differences" in error.facts else {}
        self.journal.append(
            kind,
            {"error": type(error).__name__, "message": self._safe(error.message), "exit_code": error.exit_code} | facts,
        )
        self.outcome = "refused" if kind == "refused" else "unknown" if isinstance(error, OutcomeUnknown) else "failed"
        capture.display(show.error(error))
        self._close()

    def _safe(self, text: str) -> str:
        return self.target.redact(text) if hasattr(self, "target") else targets.redact(text)

    def close(self) -> None:
        """Close the run: its outcome, its report, its hashes."""
        self._close()
        path = self.record.path / ("report.html" if not self.sealed_by_parent else "")
        capture.display(
            show.outcome(f"Outcome: {self.outcome or 'planned'}. Record: {path}", self.outcome or "planned")
        )

    def _close(self) -> None:
        if self.journal.events()[-1].kind == "run_closed":
            return  # in JupyterLab a run goes on after it was closed: what came since is closed and sealed again
        self.journal.append("run_closed", {"outcome": self.outcome or "planned"})
        if not self.sealed_by_parent:
            notebook = archive.rebuild(parameters.notebook(self.slug), capture.cells())
            archive.seal(
                self.record, secrets=self.target.secrets() if hasattr(self, "target") else (), notebook=notebook
            )


def _stale(lines: list[str]) -> PlanIsStale:
    listed = "\n  ".join(lines)
    return PlanIsStale(
        f"The database moved since the plan was made. Nothing was changed. What changed:\n  {listed}\nMake a new plan and review it.",
        differences=lines,
    )

"""What a notebook calls: the same cells with and without a command above them, in order or not, and what they leave behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fix_runs import SLUG, Desk, Look, closing, verdict
from fix_shop import Broken
from mend import lab, runbook
from mend.errors import InvalidParameter, MendError, PlanConsumed, Refused, TargetUnknown
from mend.record import archive

Incident = Callable[[str], Broken]


@pytest.fixture(autouse=True)
def no_command_above(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under plain papermill."""
    for name in ("MEND_RUN", "MEND_ACTION", "MEND_OF", "MEND_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def test_a_notebook_alone_makes_a_plan_and_a_whole_record(desk: Desk, broken: Incident) -> None:
    ran = desk.papermill(broken("interrupted_index"))
    assert (ran.code, ran.document["outcome"], ran.document["plan"]["chosen"]) == (0, "planned", "resume")
    assert verdict(ran.run_id) == "whole"
    assert {path.name for path in ran.record.path.iterdir()} >= {
        "journal.jsonl",
        "plan.json",
        "record.json",
        "report.html",
        "notebook.ipynb",
    }


def test_a_notebook_alone_applies_what_is_approved_and_the_command_undoes_it(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    before = Look(incident.url).catalog()
    plan = desk.papermill(incident)
    applied = desk.papermill(incident, dry_run=False, approve=plan.digest)
    assert applied.document["outcome"] == "completed", applied.err
    assert verdict(applied.run_id) == "whole"
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert Look(incident.url).catalog() == before


def test_a_stale_approval_stops_the_notebook_and_the_record_is_whole(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    plan = desk.papermill(incident)
    Look(incident.url).execute("create index ix_somebody on shipments (carrier)")
    refused = desk.papermill(incident, dry_run=False, approve=plan.digest)
    assert refused.err.startswith("The notebook failed in a cell: PlanIsStale")
    assert refused.document["outcome"] == "refused"
    assert verdict(refused.run_id) == "whole"


@pytest.mark.parametrize(("name", "value"), [("dry_runn", True), ("lock_timeout_ms", "2000"), ("revision", 12)])
def test_a_parameter_that_is_misspelt_or_of_another_type_opens_no_run(
    broken: Incident, name: str, value: object
) -> None:
    incident = broken("interrupted_index")
    with pytest.raises(InvalidParameter, match=name):
        runbook.form(SLUG, **{**incident.parameters, name: value})
    assert archive.runs() == []


def test_a_target_that_nobody_named_is_an_error_with_a_record(broken: Incident) -> None:
    incident = broken("interrupted_index")
    with pytest.raises(TargetUnknown):
        runbook.form(SLUG, **{**incident.parameters, "target": "prod"}).open()
    (record,) = archive.runs()
    assert (record.outcome, verdict(record.run_id)) == ("failed", "whole")


@pytest.mark.parametrize("section", ["decide", "act", "undo", "prevent"])
def test_a_cell_that_is_run_before_its_turn_says_so(broken: Incident, section: str) -> None:
    run = runbook.form(SLUG, **broken("interrupted_index").parameters).open()
    with pytest.raises(InvalidParameter, match="in order"):
        getattr(run, section)()


def test_a_project_must_be_named(broken: Incident) -> None:
    run = runbook.form(SLUG, target=broken("interrupted_index").parameters["target"]).open()
    with pytest.raises(InvalidParameter, match="alembic_ini"):
        run.diagnose()
    assert closing(run.run_id)["error"] == "InvalidParameter"


def test_an_unforeseen_error_is_recorded_as_such(broken: Incident, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runbook.form(SLUG, **broken("interrupted_index").parameters).open()
    monkeypatch.setattr(run.mode, "diagnose", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.diagnose()
    assert "Unexpected ZeroDivisionError" in closing(run.run_id)["message"]
    assert verdict(run.run_id) == "whole"


def test_nothing_is_verified_where_nothing_was_applied(desk: Desk, broken: Incident) -> None:
    ran = desk.papermill(broken("interrupted_index"))
    assert "verified" not in ran.kinds


def test_a_repair_that_did_not_take_is_not_called_completed(
    desk: Desk, broken: Incident, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verified by looking: somebody drops the new index between the last step and the look."""
    incident = broken("interrupted_index")
    keep = runbook.Run._keep_catalog

    def sabotaged(self: runbook.Run, name: str) -> None:
        keep(self, name)
        if "after" in name:
            Look(incident.url).execute("drop index ix_shipments_delivery_slot")

    monkeypatch.setattr(runbook.Run, "_keep_catalog", sabotaged)
    failed = desk.apply(desk.plan(incident))
    assert (failed.code, failed.document["outcome"]) == (1, "failed")
    assert closing(failed.run_id)["error"] == "VerificationFailed"
    assert "ix_shipments_delivery_slot" in failed.err
    assert f"mend undo {failed.run_id}" in failed.err


def test_an_undo_works_with_the_old_code_back_in_place(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    look = Look(incident.url)
    before = look.catalog()
    applied = desk.apply(desk.plan(incident))
    next((incident.project.directory / "migrations" / "versions").glob("4d7f20c91be6*")).unlink()
    undone = desk.here("undo", applied.run_id)
    assert (undone.code, undone.document["outcome"]) == (0, "completed"), undone.err
    assert undone.document["checks"][0]["verdict"] == "could_not_check"
    assert look.catalog() == before


def test_an_apply_or_undo_of_another_lab_incident_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = lab.Incident(
        "deadlock", "queue", "lab", "shop", 100, tmp_path / "alembic.ini", tmp_path / "error.txt", {}, ""
    )
    monkeypatch.setattr(lab, "current", lambda: other)
    monkeypatch.setenv("MEND_ACTION", "apply")
    with pytest.raises(Refused, match="holds the incident deadlock"):
        runbook.form(SLUG).open()


# --- in JupyterLab ---------------------------------------------------------------------------------------------------------


class Box:
    """The approval box, with somebody who types the right name."""

    def __init__(self, *, database: str, digest: str, apply: Callable[..., None], **_: object) -> None:
        self.database, self.digest, self.apply = database, digest, apply


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> list[Box]:
    from mend.notebook import widgets

    made: list[Box] = []
    monkeypatch.setenv("MEND_INTERACTIVE", "1")
    monkeypatch.setattr(widgets, "approval", lambda **given: made.append(Box(**given)))
    return made


def opened(incident: Broken) -> runbook.Run:
    run = runbook.form(SLUG, **incident.parameters).open()
    run.diagnose()
    run.decide()
    run.act()
    return run


def test_the_box_applies_the_plan_that_is_shown(broken: Incident, box: list[Box]) -> None:
    incident = broken("interrupted_index")
    run = opened(incident)
    told: list[str] = []
    assert (box[0].digest, box[0].database) == (
        run.plan and run.plan.digest(),
        Look(incident.url).query("select current_database()")[0][0],
    )
    assert Look(incident.url).schemas() == ["information_schema", "public"]
    box[0].apply(told.append)
    run.verify()
    run.close()
    assert Look(incident.url).version() == ["4d7f20c91be6"]
    assert any(line.startswith("step 3") for line in told)
    assert run.journal.of("approved")[0].payload["how"] == "typed"
    assert (run.record.outcome, verdict(run.run_id)) == ("completed", "whole")


def test_a_plan_that_stood_on_the_screen_while_the_database_moved_is_refused(broken: Incident, box: list[Box]) -> None:
    incident = broken("interrupted_index")
    opened(incident)
    Look(incident.url).execute("create index ix_somebody on shipments (carrier)")
    with pytest.raises(MendError, match="ix_somebody"):
        box[0].apply(print)
    assert Look(incident.url).schemas() == ["information_schema", "public"]


def test_a_second_click_applies_nothing_twice(broken: Incident, box: list[Box]) -> None:
    run = opened(broken("interrupted_index"))
    box[0].apply(lambda text: None)
    with pytest.raises(PlanConsumed):
        box[0].apply(lambda text: None)
    run.verify()
    run.close()
    assert run.record.outcome == "completed"

"""failed_migration: what it plans, what it sees, and the whole way there and back on real incidents."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fix_runs import SLUG, Desk, Look, options, verdict
from fix_shop import Broken
from mend.database.catalog import Change
from mend.diagnosis import Check, Diagnosis
from mend.errors import InvalidParameter, Refused, WrongDatabase
from mend.histories import history
from mend.histories.project import Environment, Project
from mend.modes import failed_migration
from mend.plan import Plan
from mend.repairs import halfway, steps
from mend.repairs.halfway import Facts, Seen
from mend.repairs.versions import VersionTable
from mend.replays import replay

Incident = Callable[[str], Broken]

# --- plan: pure --------------------------------------------------------------------------------------------------------

REVISION = '"""{doc}"""\nrevision = "{id}"\ndown_revision = {down}\n\n\ndef upgrade():\n    pass\n'
HOME = {
    ("table", "public.t"): "permanent",
    ("column", "public.t.id"): "integer",
    ("constraint", "public.t.t_pkey"): "PRIMARY KEY (id)",
}
COLUMN = Change("column", "public.t.a", None, "text")
CHECK = Change("constraint", "public.t.ck", None, "CHECK ((a <> ''::text))")
INDEX = Change("index", "public.ix", None, "CREATE INDEX ix ON public.t USING btree (a)")
SQL = {
    COLUMN: "ALTER TABLE t ADD COLUMN a TEXT",
    CHECK: "ALTER TABLE t ADD CONSTRAINT ck CHECK (a <> '')",
    INDEX: "CREATE INDEX CONCURRENTLY ix ON t (a)",
}
HERE = Environment(
    "77", "shop", 5, "ann", None, None, "", "public", 180000, "alembic_version", None, False, False, "postgresql", "psycopg", "1.20", "2.0", 1, 1, ()
)  # fmt: skip


def did(change: Change, state: str, *, detail: str = "", **more: Any) -> Seen:
    """A statement that makes one change, in a state."""
    number = list(SQL).index(change) + 1
    statement = replay.Statement(
        "b2",
        number,
        1,
        "op",
        f"make {change.identity}",
        SQL[change],
        True,
        change is INDEX,
        number,
        (change,),
        False,
        **more,
    )
    return Seen(statement, state, detail, {"DONE": True, "NOT_DONE": False}.get(state))


def rows_changed(ran: bool | None, *, number: int = 9) -> Seen:
    """A statement that changes rows only."""
    statement = replay.Statement(
        "b2", number, 1, "execute", "fill a", "UPDATE t SET a = 'x'", True, False, number, (), True
    )
    return Seen(statement, "DATA", "not visible in the catalog", ran)


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[..., Diagnosis]:
    """``recorded(did(COLUMN, "DONE"), ...)`` is a diagnosis as `diagnose` gives it, without a database."""
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "a1.py").write_text(REVISION.format(doc="first", id="a1", down="None"))
    (versions / "b2.py").write_text(REVISION.format(doc="second", id="b2", down='"a1"'))
    (tmp_path / "migrations" / "env.py").write_text("")
    ini = tmp_path / "alembic.ini"
    ini.write_text("[alembic]\nscript_location = %(here)s/migrations\n")
    past = history.read(ini)

    def make(
        *seen: Seen,
        live: Mapping[tuple[str, str], str] | None = None,
        cause: str = "",
        leads: str = "healthy",
        reads: tuple[str, ...] = (),
        version: str = "a1",
        **more: Any,
    ) -> Diagnosis:
        import pandas as pd

        there = {
            (c.kind, c.identity): str(c.after) for one in seen if one.state == "DONE" for c in one.statement.changes
        }
        now = {**HOME, **there, **(live or {})}
        made = replay.Replay(
            "history", "b2", None, tuple(s.statement for s in seen), reads, None, True, True, (), "18.1", 0.1
        )
        facts = Facts(
            past=past, project=Project(ini, Path(sys.executable)), revision=past.get("b2"), table=VersionTable("public", "alembic_version", (version,)),
            version_rows=pd.DataFrame(), version_sql="", environment=HERE, replayed=more.get("replayed", made), seen=seen, operations=pd.DataFrame(),
            live=now, keeper=steps.Keeper("mend", "k", {"public.t": ("id",)}), rows_said=more.get("data_operations", ""), sizes={},
        )  # fmt: skip
        checks = (
            Check("environment", "Does env.py lead here?", leads, "It leads to another." if leads != "healthy" else "", "", why="no answer" if leads == "could_not_check" else ""),
            Check("operations", "Which operations are done?", "found", "", ""),
            Check("cause", "Why did it fail?", "found" if cause else "healthy", cause, ""),
        )  # fmt: skip
        return Diagnosis(checks, halfway.evidence(facts), facts, ())

    return make


def planned(diagnosis: Diagnosis, option: str = "") -> Plan:
    return failed_migration.plan(diagnosis, option=option, write_patch=False)


def why_not(plan: Plan, option: str) -> str:
    return next(choice.why_not for choice in plan.options if choice.option == option)


def sent(plan: Plan) -> list[str]:
    return [statement.sql for step in plan.steps for statement in step.statements]


def test_what_is_missing_is_run_and_the_revision_is_recorded_in_the_same_transaction(
    recorded: Callable[..., Diagnosis],
) -> None:
    plan = planned(recorded(did(COLUMN, "DONE"), did(CHECK, "NOT_DONE")))
    assert plan.chosen == "resume"
    (step,) = plan.steps
    assert step.transactional
    assert [s.sql for s in step.statements] == [
        SQL[CHECK],
        "update \"public\".\"alembic_version\" set version_num = 'b2' where version_num = 'a1'",
    ]
    assert step.statements[-1].exactly == 1
    assert [(lock.relation, lock.mode) for lock in step.locks if lock.relation.endswith("t")] == [
        ("t", "ACCESS EXCLUSIVE")
    ]


def test_an_index_that_cannot_be_built_in_a_transaction_has_a_step_of_its_own_without_retries(
    recorded: Callable[..., Diagnosis],
) -> None:
    plan = planned(recorded(did(COLUMN, "DONE"), did(INDEX, "NOT_DONE")))
    assert [(s.transactional, s.retryable) for s in plan.steps] == [(False, False), (True, True)]
    assert plan.steps[0].restart[0].sql == "drop index concurrently if exists public.ix"


def test_an_invalid_index_is_dropped_before_it_is_built(recorded: Callable[..., Diagnosis]) -> None:
    invalid = {("index", "public.ix"): f"{INDEX.after} INVALID"}
    plan = planned(recorded(did(COLUMN, "DONE"), did(INDEX, "DIFFERENT"), live=invalid))
    assert sent(plan)[:2] == ["drop index concurrently if exists public.ix", SQL[INDEX]]
    assert plan.steps[0].undo[0].kind == "invalid_index"


def test_a_constraint_that_is_there_but_not_valid_is_validated(recorded: Callable[..., Diagnosis]) -> None:
    plan = planned(
        recorded(
            did(COLUMN, "DONE"),
            did(CHECK, "DIFFERENT"),
            live={("constraint", "public.t.ck"): f"{CHECK.after} NOT VALID"},
        )
    )
    assert sent(plan)[0] == "alter table public.t validate constraint ck"


def test_what_is_different_is_never_built_over(recorded: Callable[..., Diagnosis]) -> None:
    diagnosis = recorded(
        did(COLUMN, "DIFFERENT", detail="expected text, found integer"),
        did(CHECK, "NOT_DONE"),
        live={("column", "public.t.a"): "integer"},
    )
    plan = planned(diagnosis)
    assert "expected text, found integer" in why_not(plan, "resume")
    assert "public.t.a" in why_not(plan, "roll_back")
    assert (plan.chosen, plan.steps) == ("none", ())


def test_everything_done_is_stamped_as_exactly_this_revision(recorded: Callable[..., Diagnosis]) -> None:
    plan = planned(recorded(did(COLUMN, "DONE"), did(CHECK, "DONE")))
    assert plan.chosen == "stamp"
    assert sent(plan) == ["update \"public\".\"alembic_version\" set version_num = 'b2' where version_num = 'a1'"]


def test_nothing_done_is_a_plain_retry_without_steps(recorded: Callable[..., Diagnosis]) -> None:
    plan = planned(recorded(did(COLUMN, "NOT_DONE"), did(CHECK, "NOT_DONE")))
    assert (plan.chosen, plan.steps) == ("retry", ())
    assert "upgrade b2" in plan.next


def test_a_recorded_and_complete_revision_leaves_nothing_to_do(recorded: Callable[..., Diagnosis]) -> None:
    plan = planned(recorded(did(COLUMN, "DONE"), version="b2"))
    assert (plan.chosen, plan.steps, plan.options) == ("none", (), ())


def test_work_is_taken_back_last_first_and_values_are_kept(recorded: Callable[..., Diagnosis]) -> None:
    plan = planned(recorded(did(COLUMN, "DONE"), did(CHECK, "DONE"), did(INDEX, "NOT_DONE")), "roll_back")
    texts = sent(plan)
    assert texts[:2] == ["alter table public.t drop constraint ck", "lock table public.t in share row exclusive mode"]
    assert texts[2].startswith('create table "mend"."kept_')
    assert texts[-1] == "alter table public.t drop column a"
    assert "cascade" not in " ".join(texts).lower()


def test_a_cause_that_still_stands_makes_rolling_back_the_way_out(recorded: Callable[..., Diagnosis]) -> None:
    plan = planned(
        recorded(
            did(COLUMN, "DONE"),
            did(CHECK, "NOT_DONE"),
            cause="public.t.ck: 3 rows. Mend it first, with unique_violation.",
        )
    )
    assert plan.chosen == "roll_back"
    assert "unique_violation" in why_not(plan, "resume")
    assert "unique_violation" in plan.next


def test_a_row_change_of_which_nobody_knows_is_asked_about(recorded: Callable[..., Diagnosis]) -> None:
    plan = planned(recorded(did(COLUMN, "DONE"), rows_changed(None), did(CHECK, "NOT_DONE")))
    assert plan.chosen == "none"
    assert "data_operations=ran or not_run" in why_not(plan, "resume")
    assert "data_operations=ran or not_run" in plan.next


@pytest.mark.parametrize(("ran", "sends"), [(True, False), (False, True)])
def test_a_row_change_is_sent_only_if_it_did_not_run(
    recorded: Callable[..., Diagnosis], ran: bool, sends: bool
) -> None:
    plan = planned(recorded(did(COLUMN, "DONE"), rows_changed(ran, number=2), did(CHECK, "NOT_DONE")))
    assert ("UPDATE t SET a = 'x'" in sent(plan)) is sends


def test_rows_changed_in_a_column_that_was_there_cannot_be_taken_back_and_the_plan_says_so(
    recorded: Callable[..., Diagnosis],
) -> None:
    plan = planned(recorded(did(COLUMN, "DONE"), rows_changed(False), did(CHECK, "NOT_DONE")))
    fills, checks = plan.steps
    assert "UPDATE" in fills.sql()
    assert "fill a" in fills.irreversible
    assert not fills.reversible()
    assert checks.reversible()


def test_the_session_s_search_path_comes_along(recorded: Callable[..., Diagnosis]) -> None:
    plan = planned(recorded(did(COLUMN, "DONE"), did(CHECK, "NOT_DONE", search_path="app, public")))
    assert sent(plan)[:2] == ["set local search_path = app, public", SQL[CHECK]]


def test_an_option_that_is_not_possible_is_refused_with_the_reason(recorded: Callable[..., Diagnosis]) -> None:
    with pytest.raises(Refused, match=r"stamp is not possible: not every operation is DONE.*resume"):
        planned(recorded(did(COLUMN, "DONE"), did(CHECK, "NOT_DONE")), "stamp")


def test_an_option_that_does_not_exist_is_an_error(recorded: Callable[..., Diagnosis]) -> None:
    with pytest.raises(InvalidParameter, match="resume, roll_back, stamp, retry"):
        planned(recorded(did(COLUMN, "DONE")), "rolback")


@pytest.mark.parametrize("leads", ["found", "could_not_check"])
def test_no_plan_is_made_unless_env_py_is_proven_to_lead_to_the_target(
    recorded: Callable[..., Diagnosis], leads: str
) -> None:
    with pytest.raises(WrongDatabase):
        planned(recorded(did(COLUMN, "DONE"), did(CHECK, "NOT_DONE"), leads=leads))


def test_the_same_evidence_gives_the_same_digest_and_other_evidence_another(recorded: Callable[..., Diagnosis]) -> None:
    seen = did(COLUMN, "DONE"), did(CHECK, "NOT_DONE")
    first, again = planned(recorded(*seen)), planned(recorded(*seen))
    other = planned(
        recorded(*seen, live={("index", "public.extra"): "CREATE INDEX extra ON public.t USING btree (id)"})
    )
    assert first.digest() == again.digest() != other.digest()


# --- diagnose ----------------------------------------------------------------------------------------------------------


def test_a_healthy_shop_at_its_head_is_healthy_and_leaves_nothing_to_plan(desk: Desk, healthy: Broken) -> None:
    ran = desk.plan(healthy)
    assert ran.code == 0, ran.err
    assert {check["verdict"] for check in ran.document["checks"]} == {"healthy"}
    assert ran.document["outcome"] == "completed"
    assert ran.document["plan"]["steps"] == []


def test_a_pending_revision_that_never_began_is_healthy(desk: Desk, healthy: Broken) -> None:
    path = healthy.project.directory / "migrations" / "versions" / "feedbeef0001_next.py"
    path.write_text(
        'from alembic import op\nrevision = "feedbeef0001"\ndown_revision = "b04e7c6f21d9"\n\n\ndef upgrade():\n    op.execute("CREATE TABLE news (id int)")\n'
    )
    ran = desk.plan(healthy)
    assert ran.code == 0, ran.err
    assert ran.states == {1: "NOT_DONE"}
    assert ran.document["plan"]["chosen"] == "retry"
    assert ran.document["outcome"] == "completed"


SEEN = {
    "interrupted_index": ["DONE", "DONE", "DATA", "DIFFERENT", "NOT_DONE", "NOT_DONE", "NOT_DONE"],
    "duplicate_keys": ["DONE", "DONE", "DIFFERENT", "NOT_DONE", "NOT_DONE"],
    "lost_stamp": ["DONE", "NOT_DONE", "NOT_DONE"],
    "env_order": ["NOT_DONE", "NOT_DONE", "NOT_DONE", "DATA"],
}
FOUND = {
    "interrupted_index": {"operations", "leftovers", "retry"},
    "duplicate_keys": {"operations", "leftovers", "retry", "cause"},
    "lost_stamp": {"operations", "retry"},
    "env_order": {"operations", "retry"},
}


@pytest.mark.parametrize("scenario", SEEN)
def test_every_operation_of_the_failed_revision_has_its_true_state(desk: Desk, broken: Incident, scenario: str) -> None:
    incident = broken(scenario)
    ran = desk.plan(incident, revision="")
    assert ran.code == 2, ran.err
    assert list(ran.states.values()) == SEEN[scenario]
    assert {row["revision"] for row in ran.document["operations"]} == {incident.parameters["revision"]}
    assert {check["name"] for check in ran.document["checks"] if check["verdict"] == "found"} == FOUND[scenario]


def test_the_invalid_index_is_named_with_its_effect(desk: Desk, broken: Incident) -> None:
    ran = desk.plan(broken("interrupted_index"))
    (row,) = ran.check("leftovers")["sample"]
    assert row["kind"] == "invalid index"
    assert row["identity"] == "public.ix_orders_status_placed_at"
    detail = ran.document["operations"][3]["detail"]
    assert "INVALID (not used, not kept up to date)" in detail


def test_an_invalid_index_that_was_dropped_by_hand_is_not_done(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    Look(incident.url).execute("drop index ix_orders_status_placed_at")
    ran = desk.plan(incident)
    assert ran.states[4] == "NOT_DONE"
    assert ran.document["plan"]["chosen"] == "resume"
    assert "drop index" not in ran.document["plan"]["steps"][0]["sql"]


def test_an_index_that_was_rebuilt_by_hand_is_done(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    Look(incident.url).execute("reindex index ix_orders_status_placed_at")
    ran = desk.plan(incident)
    assert ran.states[4] == "DONE"
    assert "ix_orders_status_placed_at" not in ran.document["plan"]["steps"][0]["sql"]


def test_a_column_of_another_type_added_by_hand_is_different_and_nothing_is_built_on_it(
    desk: Desk, broken: Incident
) -> None:
    incident = broken("interrupted_index")
    Look(incident.url).execute(
        "alter table shipments drop column delivery_slot", "alter table shipments add column delivery_slot integer"
    )
    ran = desk.plan(incident)
    assert ran.states[1] == "DIFFERENT"
    assert "integer" in ran.document["operations"][0]["detail"]
    assert "integer" in ran.options["resume"]
    assert ran.document["plan"]["steps"] == []
    refused = desk.plan(incident, option="resume")
    assert refused.code == 3
    assert "integer" in refused.err


def test_a_revision_that_somebody_finished_by_hand_is_stamped_and_nothing_else(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    look = Look(incident.url)
    look.execute(
        "reindex index ix_orders_status_placed_at",
        "create index ix_shipments_delivery_slot on shipments (delivery_slot, shipped_at)",
        "alter table shipments alter column delivery_slot set default 'afternoon'",
        "comment on column shipments.delivery_slot is 'Chosen by the customer at checkout'",
    )
    before = look.catalog()
    unasked = desk.plan(incident)
    assert unasked.document["plan"]["chosen"] == "none", "that the row change ran is a conclusion; nobody said so"
    assert "stamp: name it as option" in unasked.document["plan"]["next"]
    ran = desk.plan(incident, data_operations="ran")
    assert ran.document["plan"]["chosen"] == "stamp"
    applied = desk.apply(ran)
    assert applied.code == 0, applied.err
    assert look.version() == ["4d7f20c91be6"]
    assert look.catalog() == before


def test_a_repaired_shop_is_healthy(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    assert desk.apply(desk.plan(incident)).code == 0
    again = desk.plan(incident)
    assert again.code == 0, again.err
    assert {check["verdict"] for check in again.document["checks"]} == {"healthy"}


def test_duplicates_are_named_as_what_to_mend_first(desk: Desk, broken: Incident) -> None:
    incident = broken("duplicate_keys")
    ran = desk.plan(incident)
    cause = ran.check("cause")
    assert cause["verdict"] == "found"
    assert "unique_violation" in cause["says"]
    assert cause["sample"][0]["groups"] == 1
    assert "@" not in str(cause["sample"]), "values of rows may be personal"
    assert ran.document["plan"]["chosen"] == "roll_back"
    assert desk.plan(incident, option="resume").code == 3


def test_a_retry_that_would_succeed_in_vain_is_refused_with_why(desk: Desk, broken: Incident) -> None:
    ran = desk.plan(broken("env_order"), option="retry")
    assert ran.code == 3
    assert "context.configure()" in ran.err


def test_a_lost_stamp_needs_to_be_told_whether_the_rows_were_changed(desk: Desk, broken: Incident) -> None:
    incident = broken("lost_stamp")
    ran = desk.plan(incident)
    assert (ran.code, ran.document["plan"]["chosen"], ran.document["plan"]["steps"]) == (2, "none", [])
    assert "data_operations=ran or not_run" in ran.document["plan"]["next"]
    assert desk.plan(incident, option="resume").code == 3
    assert desk.plan(incident, option="resume", data_operations="ran").code == 2
    lost_again = desk.plan(incident, option="resume", data_operations="not_run")
    assert lost_again.code == 3
    assert "loses the version row" in lost_again.err


# --- round trip --------------------------------------------------------------------------------------------------------

WITHOUT_DUPLICATES = "delete from customers as c using customers as o where o.email = c.email and o.id < c.id"
TRIPS = [
    ("interrupted_index", {"option": "resume"}, ()),
    ("interrupted_index", {"option": "roll_back"}, ()),
    ("duplicate_keys", {"option": "roll_back"}, ()),
    ("duplicate_keys", {"option": "resume"}, (WITHOUT_DUPLICATES,)),
    ("lost_stamp", {"option": "roll_back"}, ()),
    ("lost_stamp", {"option": "resume", "data_operations": "ran"}, ()),
    ("env_order", {"option": "resume"}, ()),
]


@pytest.mark.parametrize(
    ("scenario", "given", "first"),
    TRIPS,
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else None,
)
def test_round_trip(desk: Desk, broken: Incident, scenario: str, given: dict[str, str], first: tuple[str, ...]) -> None:
    incident = broken(scenario)
    look = Look(incident.url)
    look.execute(*first)
    before, rows, version, written = look.catalog(), look.rows(), look.version(), look.written()

    plan = desk.plan(incident, **given)
    assert plan.code == 2, plan.err
    assert look.written() == written, "a dry run writes nothing"
    assert (look.catalog(), look.rows(), look.schemas()) == (before, rows, ["information_schema", "public"])

    applied = desk.apply(plan)
    assert applied.code == 0, applied.err
    assert verdict(applied.run_id) == "whole"
    wanted = version if given["option"] == "roll_back" else [incident.parameters["revision"]]
    assert look.version() == wanted
    if given["option"] == "resume":
        upgraded = incident.alembic("upgrade", "head")
        assert (upgraded.exit_code, look.version()) == (0, wanted), upgraded
    again = desk.plan(incident)
    still_there = ["cause"] if (scenario, given["option"]) == ("duplicate_keys", "roll_back") else []
    assert [check["name"] for check in again.document["checks"] if check["verdict"] != "healthy"] == still_there

    if irreversible := [step["irreversible"] for step in plan.document["plan"]["steps"] if step["irreversible"]]:
        refused = desk.here("undo", applied.run_id)
        assert refused.code == 3
        assert irreversible[0] in refused.err
        return
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert look.catalog() == before
    assert look.rows() == rows
    assert look.version() == version
    assert verdict(undone.run_id) == "whole"


@pytest.mark.parametrize(
    ("scenario", "given"),
    [("interrupted_index", {}), ("lost_stamp", {"option": "roll_back"})],
    ids=["interrupted_index", "lost_stamp"],
)
def test_a_rolled_back_revision_can_be_run_from_the_start(
    desk: Desk, broken: Incident, scenario: str, given: dict[str, str]
) -> None:
    incident = broken(scenario)
    applied = desk.apply(desk.plan(incident, option="roll_back"))
    assert applied.code == 0, applied.err
    upgraded = incident.alembic("upgrade", "head")
    assert upgraded.exit_code == 0, upgraded


def test_the_whole_way_by_the_real_command(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    look = Look(incident.url)
    before = look.catalog()
    plan = desk.mend("plan", SLUG, *options(incident), "--incident", "INC-7")
    assert plan.code == 2, plan.err
    applied = desk.mend("apply", plan.run_id, "--approve", plan.digest)
    assert (applied.code, applied.document["outcome"]) == (0, "completed"), applied.err
    undone = desk.mend("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert look.catalog() == before
    verified = desk.mend("verify", "--all", "--target")
    assert verified.code == 0, verified.out
    assert {run["incident"] for run in desk.mend("runs").document["runs"]} == {"INC-7"}


def revision_file(incident: Broken) -> Path:
    return next((incident.project.directory / "migrations" / "versions").glob(f"{incident.parameters['revision']}*"))


def test_the_patch_is_written_only_when_it_is_asked_for_and_undo_takes_it_back(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    look = Look(incident.url)
    before, text = look.catalog(), revision_file(incident).read_text()
    plan = desk.plan(incident, write_patch="yes")
    assert revision_file(incident).read_text() == text, "a plan writes no file either"
    applied = desk.apply(plan)
    assert applied.code == 0, applied.err
    assert "if_not_exists=True" in revision_file(incident).read_text()
    assert desk.plan(incident).code == 0
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert (look.catalog(), revision_file(incident).read_text()) == (before, text)
    assert desk.apply(desk.plan(incident)).code == 0
    assert revision_file(incident).read_text() == text


@pytest.mark.parametrize(("kind", "after"), [("step_started", True), ("step_done", False)])
def test_a_run_killed_around_writing_the_patch_is_gone_on_with(
    desk: Desk, broken: Incident, kind: str, after: bool
) -> None:
    incident = broken("interrupted_index")
    plan = desk.plan(incident, write_patch="yes")
    killed = desk.crash(
        "apply", plan.run_id, "--approve", plan.digest, kind=kind, nth=len(plan.document["plan"]["steps"]), after=after
    )
    resumed = desk.here("resume", killed)
    assert resumed.code == 0, resumed.err
    assert "if_not_exists=True" in revision_file(incident).read_text()


def test_plain_papermill_runs_it_without_parameters_in_an_empty_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lab_of_its_own: Path
) -> None:
    notebook = Path(failed_migration.__file__).parents[3] / "runbooks" / f"{SLUG}.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "--no-progress-bar", str(notebook), str(tmp_path / "out.ipynb")],
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run_id,) = [path.name for path in (tmp_path / "outputs").iterdir()]
    assert verdict(run_id) == "whole"

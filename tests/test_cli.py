"""The real command, as a subprocess: documents, exit codes, and bad input answered with one paragraph."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from mend import errors, lab
from mend.command import cli, commands, practice, screen
from mend.lab.shop import plain

Done = subprocess.CompletedProcess[str]


def mend(*arguments: str, cwd: Path | None = None, **keywords: Any) -> Done:
    command = [sys.executable, "-m", "mend", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=170, check=False, cwd=cwd, **keywords)


def document(done: Done) -> dict[str, Any]:
    content = json.loads(done.stdout)
    assert content["mend"] == 1
    return dict(content)


def refusal(done: Done, code: int) -> str:
    """The one paragraph that a refusal is; no traceback, and nothing on stdout."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("mend: ")]
    assert len(lines) == 1, done.stderr
    assert len(done.stderr.split("mend: ")[-1].strip()) > 20
    return done.stderr.split("mend: ", 1)[1]


# -- what is there ----------------------------------------------------------------------------------------------------


COMMANDS = (
    "demo",
    "list",
    "triage",
    "plan",
    "apply",
    "undo",
    "resume",
    "pause",
    "open",
    "runs",
    "show",
    "verify",
    "lab",
)


def test_the_help_names_every_command_and_the_exit_codes() -> None:
    done = mend("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert "2 a plan waits" in " ".join(done.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    assert mend(command, "--help").returncode == 0


def test_the_help_takes_less_than_300_ms_of_work() -> None:
    """CPU time and not the clock's, so that a busy machine does not decide; the best of three."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        mend("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.3


def test_the_catalogue_gives_slug_symptom_and_sqlstates() -> None:
    entry = next(e for e in document(mend("list", "--json"))["runbooks"] if e["slug"] == "failed_migration")
    assert "already exists" in entry["symptom"]
    assert "42701" in entry["sqlstates"]
    assert "failed_migration" in mend("list").stdout


def test_the_lab_lists_its_scenarios_with_the_default_first() -> None:
    assert document(mend("lab", "list", "--json"))["scenarios"]["failed_migration"][0] == "interrupted_index"


# -- bad input --------------------------------------------------------------------------------------------------------

BAD = [
    # (arguments, exit code, a part of what is said)
    (["nonsense"], 1, "No such command"),
    (["plan"], 1, "Missing argument"),
    (["plan", "failed_migration", "--nonsense"], 1, "--nonsense"),
    (["plan", "failed_migratoin"], 1, "Did you mean failed_migration"),
    (["plan", "triage"], 1, "no failure mode"),
    (["plan", "../failed_migration"], 1, "No runbook is called"),
    (["plan", "failed_migration", "-t", "production"], 1, "No target is called 'production'"),
    (["plan", "failed_migration", "-t", "env:NOT_SET_HERE"], 1, "environment variable NOT_SET_HERE is not set"),
    (["plan", "failed_migration", "-t", "postgresql://ann:s3cret@db/shop"], 1, "holds a password"),
    (["plan", "failed_migration", "-p", "revison", "x"], 1, "Did you mean revision?"),
    (["plan", "failed_migration", "-p", "lock_timeout_ms", "soon"], 1, "must be a whole number"),
    (["plan", "failed_migration", "-p", "revision"], 1, "-p needs NAME VALUE"),
    (["plan", "failed_migration", "--parameter=revision=x"], 1, "-p needs NAME VALUE"),
    (["plan", "failed_migration", "-p", "dry_run", "false"], 1, "mend apply failed_migration"),
    (["plan", "failed_migration", "-f", "nowhere.yaml"], 1, "nowhere.yaml cannot be read"),
    (["plan", "failed_migration", "-a", "nowhere.ini"], 1, "nowhere.ini"),
    (["apply", "20200101T000000Z-failed_migration-000000"], 1, "No run is called"),
    (["apply", "failed_migration", "-t", "production", "--auto-approve"], 1, "No target is called"),
    (["undo", "000000"], 1, "No run is called"),
    (["resume", "000000"], 1, "No run is called"),
    (["pause", "000000"], 1, "No run is called"),
    (["show", "000000"], 1, "No run is called"),
    (["verify", "000000"], 1, "No run is called"),
    (["open", "nonsense"], 1, "No runbook is called"),
    (["triage"], 1, "Nothing to look at"),
    (["triage", "--error-file", "nowhere.txt"], 1, "nowhere.txt cannot be read"),
    (["triage", "--error", "x", "--error-file", "-"], 1, "both given"),
    (["triage", "x"], 1, "give - to read one from stdin"),
    (["triage", "-", "--error-file", "x"], 1, "both given"),
    (["triage", "-t", "production"], 1, "No target is called"),
    (["triage", "--error", "x", "-a", "nowhere.ini"], 1, "nowhere.ini"),
    (["lab", "start", "nonsense"], 1, "The lab has no incident 'nonsense'"),
    (["lab", "start", "failed_migration", "--scenario", "nonsense"], 1, "no scenario 'nonsense'"),
    (["lab", "start", "failed_migration", "--rows", "1"], 1, "orders"),
    (["lab", "start", "failed_migration", "--rows", "many"], 1, "valid integer"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), BAD, ids=[" ".join(arguments) for arguments, _, _ in BAD])
def test_bad_input_gets_one_paragraph_and_leaves_no_record(
    arguments: list[str], code: int, says: str, tmp_path: Path
) -> None:
    done = mend(*arguments, cwd=tmp_path)
    message = refusal(done, code)
    assert says in message
    assert "s3cret" not in done.stdout + done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["plan", "failed_migratoin"], 1, "InvalidParameter"),
        (["plan", "failed_migration", "-t", "production"], 1, "TargetUnknown"),
        (["undo", "000000"], 1, "RunNotFound"),
        (["plan"], 1, "Usage"),
        (["show", "x", "--nonsense"], 1, "Usage"),
    ],
    ids=str,
)
def test_an_error_before_a_run_is_one_document_too(arguments: list[str], code: int, kind: str, tmp_path: Path) -> None:
    done = mend(*arguments, "--json", cwd=tmp_path)
    said = document(done)
    assert (done.returncode, set(said), said["error"]["kind"]) == (code, {"mend", "error"}, kind)
    assert done.stderr == f"mend: {said['error']['message']}\n"


@pytest.mark.parametrize("group", [[], ["lab"]], ids=str)
def test_a_command_alone_prints_its_help(group: list[str]) -> None:
    done = mend(*group)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == mend(*group, "--help").stdout.strip()


def test_a_locale_without_our_characters_is_no_obstacle() -> None:
    done = mend(
        "triage", "--error", "ERROR:  deadlock detected … naïve", env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 2, done.stderr
    done = mend("plan", "naïve…", env=os.environ | {"PYTHONIOENCODING": "ascii:strict"})
    assert "\\u2026" in refusal(done, 1)
    done = mend("plan", "naïve…", "--json", env=os.environ | {"PYTHONIOENCODING": "ascii:strict"})
    assert "u2026" in done.stdout


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        ("revison: x", "Did you mean revision?"),
        ('dry_run: "true"', "must be true or false"),
        ("- a\n- b", "is not a list of"),
        ("a: [", "cannot be read"),
        ("revision: 123", "must be a text"),
    ],
)
def test_a_wrong_parameters_file_says_what_is_wrong(yaml: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(yaml)
    assert says in refusal(mend("plan", "failed_migration", "-f", "p.yaml", cwd=tmp_path), 1)


def test_a_wrong_mend_toml_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "mend.toml").write_text('[targets.shop]\nurl = "postgresql://ann:s3cret@db/shop"\n')
    done = mend("triage", "-t", "shop", cwd=tmp_path)
    assert "targets.shop.url" in refusal(done, 1)
    assert "s3cret" not in done.stderr


def test_a_folder_for_records_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shop: Any
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEND_OUTPUTS", str(tmp_path / "file" / "outputs"))
    monkeypatch.setenv("SHOP_URL", shop.url)
    assert "MEND_OUTPUTS" in refusal(
        mend("plan", "failed_migration", "-t", "env:SHOP_URL", "-a", str(shop.alembic_ini)), 1
    )


@pytest.mark.parametrize("arguments", [["lab", "start", "failed_migration"], ["demo"]], ids=" ".join)
def test_a_home_that_cannot_be_written_is_said(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEND_HOME", str(tmp_path / "file" / "home"))
    done = mend(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "Set MEND_HOME" in done.stderr
    assert "Unexpected" not in done.stderr


def test_debug_gives_the_traceback_wherever_it_stands() -> None:
    for arguments in (["--debug", "plan", "nonsense"], ["plan", "nonsense", "--debug"]):
        done = mend(*arguments)
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert "InvalidParameter" in done.stderr


def test_a_defect_of_ours_is_one_paragraph_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mend import __main__ as border

    def defective(*, json: bool) -> int:
        raise ZeroDivisionError("postgresql://ann:s3cret@db/shop")

    monkeypatch.setattr(commands, "catalogue", defective)
    assert border.main(["list"]) == 1
    said = capsys.readouterr().err
    assert "Unexpected ZeroDivisionError" in said
    assert "s3cret" not in said
    with pytest.raises(ZeroDivisionError):
        border.main(["list", "--debug"])


def test_an_interrupt_exits_with_4(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from mend import __main__ as border

    def interrupted(*, json: bool) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "catalogue", interrupted)
    assert border.main(["list"]) == 4
    assert "mend resume" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "mend", "list"], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_a_log_says_cannot_steer_the_terminal() -> None:
    done = mend("triage", "--error", 'ERROR:  constraint "\x1b[2Jx\x9b" for relation "t" already exists')
    assert done.returncode == 2
    assert not set(done.stdout) & {"\x1b", "\x9b"}


def test_a_next_command_works_as_printed_where_mend_is_not_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen.shutil, "which", lambda _name: None)
    monkeypatch.setattr(sys, "argv", [".venv/bin/mend", "demo"])
    assert screen.command("mend undo x") == ".venv/bin/mend undo x"
    assert screen.command("alembic upgrade head") == "alembic upgrade head"
    monkeypatch.setattr(sys, "argv", ["somewhere/__main__.py"])
    assert screen.command("mend undo x") == f"{sys.executable} -m mend undo x"
    monkeypatch.setattr(screen.shutil, "which", lambda _name: "/usr/bin/mend")
    assert screen.command("mend undo x") == "mend undo x"


def test_pairs_of_words_reach_the_runbook_whole() -> None:
    assert cli._split(cli.paired(["plan", "x", "-p", "a", "1=2", "-p", "b", "-3"])[3::2]) == [("a", "1=2"), ("b", "-3")]
    assert cli.paired(["triage", "-p", "x"]) == ["triage", "-p", "x"]


def test_every_outcome_has_an_exit_code() -> None:
    from mend.record.account import OUTCOMES

    assert set(commands.EXIT_CODES) == set(OUTCOMES)
    assert commands.EXIT_CODES["refused"] == errors.Refused.exit_code
    assert commands.EXIT_CODES["unknown"] == errors.OutcomeUnknown.exit_code


# -- servers that do not answer as hoped ------------------------------------------------------------------------------


def test_an_unreachable_server_leaves_a_record_that_says_so(monkeypatch: pytest.MonkeyPatch, shop: Any) -> None:
    monkeypatch.setenv("DOWN", "postgresql://ann:s3cret-word@127.0.0.1:1/none")
    done = mend("plan", "failed_migration", "-t", "env:DOWN", "-a", str(shop.alembic_ini), "--json")
    assert done.returncode == 1
    said = document(done)
    assert (said["outcome"], said["plan"], said["checks"]) == ("failed", None, [])
    assert "Target env:DOWN" in said["says"]
    assert "Traceback" not in done.stderr
    everything = "".join(path.read_text() for path in Path(said["record"]).iterdir())
    assert "s3cret-word" not in everything + done.stdout + done.stderr
    assert document(mend("verify", said["run_id"], "--json"))["runs"][0]["state"] == "whole"
    assert mend("triage", "-t", "env:DOWN").returncode == 1


@pytest.fixture
def locked_role(database: str) -> Iterator[str]:
    """A role that must give a password; the server asks nobody else for one."""
    role = f"locked_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(plain(database), autocommit=True) as conn:
        conn.execute(f"create role {role} login password 'the-right-one'".encode())
        found = conn.execute("show hba_file").fetchone()
        assert found
        hba = Path(found[0])
        before = hba.read_text()
        hba.write_text(f"local all {role} scram-sha-256\n" + before)
        conn.execute("select pg_reload_conf()")
        yield role
        hba.write_text(before)
        conn.execute("select pg_reload_conf()")
        conn.execute(f"drop role {role}".encode())


def test_a_wrong_password_is_named_and_never_shown(
    database: str, locked_role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKED", plain(database).replace("postgres@", f"{locked_role}:the-wrong-one@", 1))
    done = mend("triage", "-t", "env:LOCKED")
    message = refusal(done, 1)
    assert "password authentication failed" in message
    assert "Check the role, its password and pg_hba.conf" in message
    assert "the-wrong-one" not in done.stdout + done.stderr


def test_a_role_without_privileges_gets_an_answer_or_a_reason(
    shop: Any, locked_role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOR", plain(shop.url).replace("postgres@", f"{locked_role}:the-right-one@", 1))
    done = mend("triage", "-t", "env:POOR", "-a", str(shop.alembic_ini), "--json")
    assert done.returncode == 1
    said = document(done)
    assert said["findings"] == []
    assert any("version rows" in note for note in said["could_not_check"])


# -- triage -----------------------------------------------------------------------------------------------------------


def test_triage_reads_a_text_a_file_and_stdin_alike(tmp_path: Path) -> None:
    text = "ERROR:  deadlock detected"
    (tmp_path / "log").write_text(text)
    (tmp_path / "utf16").write_text(text, encoding="utf-16")
    answers = [
        mend("triage", "--error", text, "--json"),
        mend("triage", "--error-file", str(tmp_path / "log"), "--json"),
        mend("triage", "--error-file", str(tmp_path / "utf16"), "--json"),
        mend("triage", "--error-file", "-", "--json", input=text),
        mend("triage", "-", "--json", input=text),
    ]
    assert {done.returncode for done in answers} == {2}
    assert len({done.stdout for done in answers}) == 1
    finding = document(answers[0])["findings"][0]
    assert set(finding) == {"slug", "confidence", "evidence", "parameters", "command"}
    assert finding["slug"] == "deadlock"


def test_an_unknown_text_is_said_to_be_unknown_and_not_healthy() -> None:
    done = mend("triage", "--error", "something went wrong", "--json")
    assert (done.returncode, document(done)["findings"]) == (1, [])
    assert mend("triage", "--error", "something went wrong").stdout.startswith("Unknown")


def test_a_healthy_database_exits_with_0(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP", shop.url)
    done = mend("triage", "-t", "env:SHOP", "-a", str(shop.alembic_ini))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Nothing found")


def test_a_target_of_mend_toml_brings_its_alembic_ini(
    incident: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = incident("interrupted_index")
    monkeypatch.setenv("SHOP", broken.url)
    (tmp_path / "mend.toml").write_text(f'[targets.shop]\nurl = "env:SHOP"\nalembic_ini = "{broken.alembic_ini}"\n')
    finding = document(mend("triage", "-t", "shop", "--json", cwd=tmp_path))["findings"][0]
    assert finding["command"] == f"mend plan failed_migration -t shop -p revision {broken.parameters['revision']}"


# -- a whole incident -------------------------------------------------------------------------------------------------


@pytest.fixture
def planned(incident: Any, tmp_path: Path) -> Callable[..., tuple[Any, dict[str, Any]]]:
    def make(scenario: str = "interrupted_index") -> tuple[Any, dict[str, Any]]:
        broken = incident(scenario)
        values = broken.parameters
        done = mend(
            "plan",
            "failed_migration",
            "-t",
            values["target"],
            "-a",
            values["alembic_ini"],
            "-p",
            "revision",
            values["revision"],
            "--incident",
            "INC-7",
            "--json",
            cwd=tmp_path,
        )
        assert done.returncode == 2, done.stderr
        return broken, document(done)

    return make


def test_an_incident_is_planned_applied_verified_and_undone(planned: Any) -> None:
    broken, plan = planned()
    states = {(row["index"], row["state"]) for row in plan["operations"]}
    assert {state for _, state in states} == {"DONE", "DATA", "DIFFERENT", "NOT_DONE"}
    assert set(plan) >= {"run_id", "slug", "outcome", "target", "checks", "plan", "record", "operations"}
    assert set(plan["checks"][0]) >= {"question", "verdict", "why", "rows", "columns", "sample"}
    assert set(plan["plan"]) >= {"digest", "options", "chosen", "steps"}
    assert set(plan["plan"]["steps"][0]) >= {"says", "sql", "locks", "transactional", "rows_expected", "undo"}

    run_id, digest = plan["run_id"], plan["plan"]["digest"]
    assert "is not approved" in refusal(mend("apply", run_id), 3)
    assert document(mend("apply", run_id, "--json"))["error"]["kind"] == "NotApproved"
    assert "is of another plan" in refusal(mend("apply", run_id, "--approve", "0123456789abcdef"), 3)
    assert "its own parameters" in refusal(mend("apply", run_id, "-p", "option", "stamp", "--approve", digest), 1)
    assert "applied nothing" in refusal(mend("undo", run_id), 3)

    applied = mend("apply", run_id[-6:], "--approve", digest, "--json")
    assert applied.returncode == 0, applied.stderr
    assert document(applied)["outcome"] == "completed"
    assert broken.alembic("upgrade", "head").exit_code == 0

    listed = document(mend("runs", "--incident", "INC-7", "--json"))["runs"]
    assert [(run["action"], run["outcome"]) for run in listed] == [("apply", "completed"), ("plan", "planned")]
    assert document(mend("runs", "--incident", "INC-8", "--json"))["runs"] == []
    shown = mend("show", document(applied)["run_id"])
    assert "completed" in shown.stdout
    assert "mend undo" in shown.stdout
    assert mend("verify", "--all").returncode == 0

    undone = mend("undo", document(applied)["run_id"], "--json")
    assert undone.returncode == 0, undone.stderr
    assert "was undone" in refusal(mend("undo", document(applied)["run_id"]), 3)


def test_a_moved_database_is_refused_with_what_changed(planned: Any) -> None:
    broken, plan = planned()
    with psycopg.connect(plain(broken.url), autocommit=True) as conn:
        conn.execute("drop index ix_orders_status_placed_at")
    done = mend("apply", plan["run_id"], "--approve", plan["plan"]["digest"])
    assert done.returncode == 3
    assert "What changed" in done.stderr
    assert "ix_orders_status_placed_at" in done.stderr.split("What changed")[1]


def test_applying_a_slug_needs_an_approval_and_auto_approve_is_one(incident: Any) -> None:
    broken = incident("duplicate_keys")
    values = ["-t", broken.parameters["target"], "-a", broken.parameters["alembic_ini"], "-p", "option", "roll_back"]
    done = mend("apply", "failed_migration", *values)
    assert done.returncode == 3
    assert "is not approved" in done.stderr
    done = mend("apply", "failed_migration", *values, "--json")
    assert (done.returncode, document(done)["outcome"]) == (3, "planned"), "one document, of the plan that waits"
    done = mend("apply", "failed_migration", *values, "--auto-approve", "--json")
    assert done.returncode == 0, done.stderr
    assert document(done)["outcome"] == "completed"


def test_a_record_that_was_edited_fails_verify(monkeypatch: pytest.MonkeyPatch, shop: Any) -> None:
    monkeypatch.setenv("DOWN", "postgresql://ann@127.0.0.1:1/none")
    record = document(mend("plan", "failed_migration", "-t", "env:DOWN", "-a", str(shop.alembic_ini), "--json"))[
        "record"
    ]
    path = Path(record) / "journal.jsonl"
    path.write_text(path.read_text().replace("env:DOWN", "env:UP"))
    done = mend("verify", "--json")
    assert done.returncode == 1
    assert [run["state"] for run in document(done)["runs"]] == ["edited"]


def test_the_lab_says_what_only_the_operator_would_know(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"target": "lab", "alembic_ini": "a.ini", "revision": "c7d2504ba91e", "table": "orders", "column": "a b"}
    incident = lab.Incident(
        "data_loss", "dropped", "lab", "shop", 1, Path("a.ini"), Path("e.txt"), known, "mend triage"
    )
    monkeypatch.setattr(lab, "start", lambda *_given, **_more: incident)
    assert practice.start("data_loss", "dropped", rows=1, json=False) == 0
    assert "known        -p table orders -p column 'a b'" in capsys.readouterr().out


def test_the_lab_starts_tells_what_to_do_next_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session_directory: Path
) -> None:
    home = session_directory / f"lab-{uuid.uuid4().hex[:6]}"  # under the session's directory, whose servers end with it
    monkeypatch.setenv("MEND_HOME", str(home))
    try:
        said = document(mend("lab", "start", "failed_migration", "--rows", "200", "--json", cwd=tmp_path))
        assert set(said) >= {"target", "alembic_ini", "error_file", "parameters", "next"}
        assert "42701" in said["next"] or said["next"].startswith("mend triage -t lab --error-file ")
        assert document(mend("lab", "status", "--json"))["running"] is True
        finding = document(mend("triage", "-t", "lab", "--error-file", said["error_file"], "--json"))["findings"][0]
        assert finding["command"] == f"mend plan failed_migration -t lab -p revision {said['parameters']['revision']}"
        assert mend("lab", "stop").returncode == 0
        assert document(mend("lab", "status", "--json"))["running"] is False
    finally:
        assert mend("lab", "reset").returncode == 0
    assert not (home / "lab").exists()
    shutil.rmtree(home, ignore_errors=True)
    assert "mend lab start" in refusal(mend("triage", "-t", "lab"), 1)


def test_open_makes_a_working_copy_with_the_parameters_and_seals_the_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SHOP", "postgresql://ann@127.0.0.1:1/none")
    command = [sys.executable, "-m", "mend", "open", "failed_migration", "-t", "env:SHOP", "-p", "revision", "1e5"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path
    ) as opened:
        assert opened.stdout
        said = [opened.stdout.readline() for _ in range(3)]
        opened.terminate()
        assert opened.wait(60) == 4, "nothing was run, so the run was interrupted"
    assert said[0].startswith("Run ")
    assert said[1].startswith("Open http://127.0.0.1:")
    run = document(mend("runs", "--json"))["runs"][0]
    assert (run["action"], run["outcome"]) == ("open", "interrupted")
    copies = "".join(path.read_text() for path in Path(run["record"]).glob("*.ipynb"))
    assert 'revision = \\"1e5\\"' in copies
    assert mend("verify", "--all").returncode == 0

"""Records: made, found, sealed, and found out when somebody changed them."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from fix_record import CLOSES, SLUG, Runbook, a_plan, fill
from mend import journal
from mend.errors import InvalidParameter, LeakFound, RecordDamaged, RunNotFound
from mend.record import account, archive, integrity, ledger


def test_a_run_is_named_by_time_slug_and_chance(record: archive.Record) -> None:
    assert re.fullmatch(r"\d{8}T\d{6}Z-small-[0-9a-f]{6}", record.run_id)
    assert archive.create(SLUG, action="plan", parameters={}).run_id != record.run_id


def test_the_first_event_tells_who_runs_what(record: archive.Record) -> None:
    opened = record.opened
    assert opened["who"]["os_user"]
    assert opened["who"]["host"]
    assert (opened["slug"], opened["action"], opened["incident"]) == (SLUG, "plan", "INC-1")
    assert opened["parameters"] == {"target": "lab"}
    assert opened["runbook"]["path"] == "small.ipynb"
    assert len(opened["runbook"]["sha256"]) == 64
    assert opened["versions"].keys() == {"mend", "python", "alembic", "sqlalchemy", "psycopg", "papermill"}


def test_outputs_that_cannot_be_written_are_named(
    runbook: Runbook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runbook()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEND_OUTPUTS", str(tmp_path / "file"))
    with pytest.raises(InvalidParameter, match="MEND_OUTPUTS"):
        archive.create(SLUG, action="plan", parameters={})


def test_a_run_is_found_by_what_only_it_has(record: archive.Record) -> None:
    assert archive.find(record.run_id) == record
    assert archive.find(record.run_id[-6:]) == record
    other = archive.create(SLUG, action="plan", parameters={})
    with pytest.raises(RunNotFound, match="2 runs are called") as raised:
        archive.find(record.run_id[:4])
    assert set(raised.value.near) == {record.run_id, other.run_id}


def test_an_unknown_run_is_met_with_those_that_are_near(record: archive.Record) -> None:
    with pytest.raises(RunNotFound, match=record.run_id):
        archive.find(record.run_id[:-1] + ("0" if record.run_id[-1] != "0" else "1"))
    with pytest.raises(RunNotFound):
        archive.find("")


def test_runs_come_newest_first_and_by_incident(record: archive.Record) -> None:
    second = archive.create(SLUG, action="apply", parameters={}, incident="INC-2", of=record.run_id)
    (record.path.parent / "notes").mkdir()
    assert [r.run_id for r in archive.runs()] == [second.run_id, record.run_id]
    assert [r.run_id for r in archive.runs("INC-1")] == [record.run_id]
    assert [r.run_id for r in archive.children(record.run_id)] == [second.run_id]


STEP = ("step_started", {"step": 0})
ENDINGS: list[tuple[str, list[tuple[str, dict[str, Any]]]]] = [
    ("planned", [("run_closed", {"outcome": "planned"})]),
    ("completed", [STEP, ("step_done", {"step": 0}), ("run_closed", {"outcome": "completed"})]),
    ("could_not_check", [("run_closed", {"outcome": "could_not_check"})]),
    ("refused", [("refused", {"error": "PlanIsStale", "exit_code": 3})]),
    ("failed", [("failed", {"error": "StepFailed", "exit_code": 1})]),
    ("failed", [("run_closed", {"outcome": "splendid"})]),
    ("unknown", [STEP, ("failed", {"error": "OutcomeUnknown", "exit_code": 4})]),
    ("interrupted", [("failed", {"error": "Interrupted", "exit_code": 4})]),
    ("interrupted", [("failed", {"error": "Interrupted", "exit_code": 4}), ("run_closed", {"outcome": "unknown"})]),
    ("interrupted", []),
    ("interrupted", [STEP, ("step_done", {"step": 0})]),
    ("unknown", [STEP]),
    ("unknown", [STEP, ("step_failed", {"step": 0, "outcome": "unknown"})]),
]


@pytest.mark.parametrize(("outcome", "events"), ENDINGS)
def test_the_journal_decides_the_outcome(
    record: archive.Record, outcome: str, events: list[tuple[str, dict[str, Any]]]
) -> None:
    for kind, payload in events:
        record.journal.append(kind, payload)
    assert record.outcome == outcome


def test_record_json_tells_the_whole_run(ended: archive.Record) -> None:
    summary = ended.summary()
    assert summary["outcome"] == "planned"
    assert summary["who"]["role"] == "ann"
    assert summary["target"]["system_identifier"] == "77"
    assert summary["counts"] == {"checks": 1, "found": 1, "could_not_check": 0, "steps": 2, "steps_done": 0, "rows": 0}
    assert summary["files"].keys() == {"journal.jsonl", "notebook.ipynb", "plan.json", "report.html"}
    assert summary["journal"]["length"] == len(ended.journal.events())
    assert summary["digest"] == a_plan().digest()


def test_the_document_says_what_the_record_says(ended: archive.Record) -> None:
    document = archive.document(ended)
    assert document["mend"] == 1
    assert document["outcome"] == "planned"
    assert document["checks"][0]["verdict"] == "found"
    step = document["plan"]["steps"][0]
    assert step["locks"] == [{"relation": "public.orders", "mode": "SHARE UPDATE EXCLUSIVE"}]
    assert step["undo"] == [{"says": "Build it again", "sql": "create index ix on public.orders (id);"}]
    json.dumps(document)


def test_a_sealed_record_is_whole_and_may_be_sealed_again(ended: archive.Record) -> None:
    assert archive.verify(ended).state == "whole"
    ended.journal.append("run_closed", {"outcome": "completed"})
    assert archive.verify(ended).state == "edited"
    archive.seal(ended)
    assert archive.verify(ended).state == "whole"
    assert ended.summary()["outcome"] == "completed"


def test_the_copy_that_jupyterlab_has_open_is_no_evidence(ended: archive.Record) -> None:
    ended.save(integrity.WORKING, "{}")
    assert archive.verify(ended).state == "whole"


def test_a_run_that_was_never_sealed_is_unfinished(record: archive.Record) -> None:
    assert archive.verify(record).state == "unfinished"
    path = record.journal.path
    path.write_bytes(path.read_bytes() + b'{"seq": 1, "ti')  # the power went
    assert archive.verify(record).state == "unfinished"


FILES = ["journal.jsonl", "notebook.ipynb", "plan.json", "report.html", "record.json"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_off_is_truncated(ended: archive.Record, name: str) -> None:
    path = ended.path / name
    path.write_bytes(path.read_bytes()[: -len(path.read_bytes()) // 3])
    verdict = archive.verify(ended)
    assert verdict.state == "truncated"
    assert name in verdict.why


@pytest.mark.parametrize("name", FILES)
def test_one_changed_letter_is_an_edit(ended: archive.Record, name: str) -> None:
    path = ended.path / name
    text = path.read_text()
    changed = (
        text.replace("planned", "applied", 1) if name in ("record.json", "journal.jsonl") else text.replace("e", "E", 1)
    )
    path.write_text(changed)
    verdict = archive.verify(ended)
    assert changed != text
    assert verdict.state == "edited"
    assert name in verdict.why


@pytest.mark.parametrize(
    ("name", "state"), [(name, "unfinished" if name == "record.json" else "missing") for name in FILES]
)
def test_a_file_that_is_gone_is_missed(ended: archive.Record, name: str, state: str) -> None:
    (ended.path / name).unlink()
    verdict = archive.verify(ended)
    assert verdict.state == state
    assert name in verdict.why or state == "unfinished"


def test_events_cut_off_at_a_line_end_are_truncation(ended: archive.Record) -> None:
    lines = ended.journal.path.read_bytes().splitlines(keepends=True)
    ended.journal.path.write_bytes(b"".join(lines[:-2]))
    assert archive.verify(ended).state == "truncated"
    ended.journal.path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    assert archive.verify(ended).state == "edited"


@pytest.mark.parametrize("key", ["outcome", "approver", "parameters", "who", "started", "counts", "digest"])
def test_record_json_cannot_say_more_than_the_journal(ended: archive.Record, key: str) -> None:
    summary = ended.summary()
    ended.save("record.json", json.dumps(summary | {key: "somebody else"}))
    assert archive.verify(ended).state == "edited"
    ended.save("record.json", json.dumps({k: v for k, v in summary.items() if k != key}))
    assert archive.verify(ended).state == "edited"


def test_an_edited_plan_is_not_read(ended: archive.Record) -> None:
    path = ended.path / "plan.json"
    path.write_text(path.read_text().replace("drop index concurrently", "drop table"))
    with pytest.raises(RecordDamaged):
        ended.plan()


@pytest.fixture
def applied(record: archive.Record, database: str) -> tuple[archive.Record, sqlalchemy.Engine]:
    """A run that applied its plan, anchored in a target."""
    engine = sqlalchemy.create_engine(database, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    record.journal.append("applied", {"outcome": "done"})
    last = record.journal.events()[-1]
    with engine.connect() as conn:
        for text in ledger.schema_statements("mend"):
            conn.exec_driver_sql(text)
        conn.exec_driver_sql(*ledger.begin_run("mend", run_id=record.run_id, slug=SLUG, digest="d", action="apply"))
        conn.exec_driver_sql(
            *ledger.end_run("mend", run_id=record.run_id, outcome="done", length=last.seq + 1, head=last.hash)
        )
    fill(record)
    archive.seal(record)
    return record, engine


def _forge(record: archive.Record, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Rewrite the journal with a chain that holds, and record.json to go with it."""
    events = change([dict(e.__dict__) for e in record.journal.events()])
    prev, lines = journal.GENESIS, []
    for seq, event in enumerate(events):
        body = {k: v for k, v in event.items() if k != "hash"} | {"seq": seq, "prev": prev}
        prev = journal.sha256(journal.canonical(body))
        lines.append(journal.canonical(body | {"hash": prev}) + "\n")
    record.journal.path.write_text("".join(lines))
    content = account.summary(record.run_id, record.journal.events(), files=integrity.hashes(record.path))
    record.save("record.json", json.dumps(content))


def test_the_target_tells_a_forged_journal(applied: tuple[archive.Record, sqlalchemy.Engine]) -> None:
    record, engine = applied

    def other_operator(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        events[0]["payload"]["who"]["os_user"] = "bob"
        return events

    with engine.connect() as conn:
        assert archive.verify_against_target(record, conn).state == "whole"
        _forge(record, other_operator)
        assert archive.verify(record).state == "whole"
        assert archive.verify_against_target(record, conn).state == "edited"


def test_the_target_tells_a_journal_cut_off_and_sealed_anew(applied: tuple[archive.Record, sqlalchemy.Engine]) -> None:
    record, engine = applied
    _forge(record, lambda events: events[:1])
    assert archive.verify(record).state == "whole"
    with engine.connect() as conn:
        assert archive.verify_against_target(record, conn).state == "truncated"


def test_a_run_that_the_target_does_not_know_did_not_apply_there(
    applied: tuple[archive.Record, sqlalchemy.Engine],
) -> None:
    record, engine = applied
    with engine.connect() as conn:
        conn.exec_driver_sql("delete from mend.run")
        assert archive.verify_against_target(record, conn).state == "edited"


SECRET = 'p4"ss\\wörd'
SPELLINGS = [
    SECRET,
    json.dumps(SECRET),
    json.dumps(json.dumps(SECRET)),
    SECRET.replace('"', "&quot;"),
    "postgresql://ann:hunter2@db/shop",
    "postgresql+psycopg://ann:a%40b@db:5432/shop",
    "host=db user=ann password=hunter2",
    "PGPASSWORD=hunter2 psql",
    "connect(password='hunter2')",
    '\\"password=hunter2\\"',
    "password: ok12",
    "create user u password 'hunter2'",
    "ALTER ROLE u ENCRYPTED PASSWORD E'hunter2\\'s'",
    "alter role u password $x$hunter2$x$",
    "create user mapping for u server s options (user 'u', password 'hunter2')",
    json.dumps("create role u\npassword\n'hunter2'"),
    html.escape("create role u password 'hunter2'"),
    "create role u <b>password</b> <i>&#39;hunter2&#39;</i>",
    repr("create role \"u\" password 'hunter2'"),
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", ["notebook.ipynb", "working.ipynb", "notes.txt"])
def test_a_secret_blocks_archiving_wherever_it_is(record: archive.Record, name: str, spelling: str) -> None:
    fill(record)
    record.save(name, f"before {spelling} after")
    with pytest.raises(LeakFound) as raised:
        archive.seal(record, secrets=(SECRET, "ok12"))
    summary = record.summary()
    assert (summary["outcome"], summary["leak"]) == ("failed", name)
    assert not (record.path / "report.html").exists()
    assert archive.verify(record).state == "unfinished"
    assert not any(word in raised.value.message + json.dumps(summary) for word in ("hunter2", SECRET, "ok12"))


def test_a_secret_in_the_journal_does_not_reach_the_report(record: archive.Record) -> None:
    record.journal.append("check", {"name": "x", "sample": [{"v": SECRET}], "verdict": "found"})
    with pytest.raises(LeakFound):
        archive.seal(record, secrets=(SECRET,))
    assert not (record.path / "report.html").exists()


HARMLESS = [
    "postgresql://ann:***@db/shop",
    "password=***",
    "connect(password=os.environ['PW'])",
    "connect(password=settings.password)",
    "update users set password=:password",
    "set password=%s, x=1",
    "set password=$1",
    "set password=null",
    "create role x password=?",
    "create role x password '***'",
    "create role x password null",
    "create role x password %(new)s",
    "comment on column users.password is 'the hash'",
    "alter table users add column password text default 'x'",
    "insert into forms (label) values ('password'), ('name')",
    "select concat('your password ', 'please')",
    "alter table users add column password text",
    "http://localhost:8888/a@b",
    "role ok12 may",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_a_secret_is_archived(record: archive.Record, text: str) -> None:
    fill(record)
    record.save("notes.txt", text)
    assert archive.seal(record, secrets=("ok12", "shop"))["outcome"] == "planned"


def test_a_password_that_is_also_the_role_is_no_leak_by_itself(record: archive.Record) -> None:
    fill(record)
    record.save("notes.txt", "role postgres, database postgres")
    archive.seal(record, secrets=("postgres",))
    record.save("notes.txt", '{"user": "postgres", "password": "postgres"}')
    with pytest.raises(LeakFound):
        archive.seal(record, secrets=("postgres",))


def test_a_notebook_is_rebuilt_from_what_its_cells_showed(runbook: Runbook) -> None:
    template = runbook("a = 1", "b = 2")
    injected, shown = "# Parameters\ntarget = 'env:X'\n", {"text/html": "<p>hi</p>", "text/plain": "hi"}
    ran = [
        ('target: str = "lab"  # where\nrevision: str = ""  # which', []),
        (injected, []),
        ("a = 1", []),
        ("print('own')", []),
        ("a = 1\n", [shown]),
    ]
    cells = archive.rebuild(template, ran)["cells"]
    sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    assert sources[1:] == [injected, "a = 1", "print('own')", "b = 2", CLOSES]
    a, b = (next(c for c in cells if "".join(c["source"]).startswith(start)) for start in ("a =", "b ="))
    assert a["outputs"][0]["data"] == shown
    assert a["execution_count"] == 5
    assert b["execution_count"] is None


def test_a_rebuilt_notebook_is_sealed_with_the_record(record: archive.Record, runbook: Runbook) -> None:
    record.journal.append("run_closed", {"outcome": "completed"})
    summary = archive.seal(record, notebook=archive.rebuild(runbook("a = 1"), [("a = 1", [])]))
    assert "notebook.ipynb" in summary["files"]


def test_verify_needs_no_heavy_library(ended: archive.Record) -> None:
    code = f"import sys; from pathlib import Path; from mend.record import archive; print(archive.verify(archive.Record(Path({str(ended.path)!r}))).state); print({{'pandas', 'sqlalchemy', 'papermill', 'bleach'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["whole", "set()"]

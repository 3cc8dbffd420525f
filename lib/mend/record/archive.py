"""outputs/: one folder per run.  Makes it, finds it, seals it with a report and hashes, and tells whether it still is what it was."""

from __future__ import annotations

import difflib
import json
import re
import secrets as random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mend import journal, settings
from mend.errors import InvalidParameter, LeakFound, RecordDamaged, RunNotFound
from mend.files import write_atomic
from mend.plan import Plan, from_record
from mend.record import account, integrity, leaks, provenance
from mend.record.integrity import JOURNAL, NOTEBOOK, PLAN, REPORT, SUMMARY, Verdict

if TYPE_CHECKING:
    from sqlalchemy import Connection

Action = Literal["plan", "apply", "undo", "resume", "open"]

_RUN_ID = re.compile(r"\d{8}T\d{6}Z-[a-z][a-z0-9_]*-[0-9a-f]{6}")


@dataclass(frozen=True)
class Record:
    """The folder of one run."""

    path: Path

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def journal(self) -> journal.Journal:
        """The run's events."""
        return journal.Journal(self.path / JOURNAL)

    @property
    def opened(self) -> dict[str, Any]:
        """What the run was started with; {} where the first line cannot be read."""
        try:
            with (self.path / JOURNAL).open(encoding="utf-8") as file:
                return dict(json.loads(file.readline())["payload"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    @property
    def outcome(self) -> str:
        """One of DESIGN 7's words, by the journal."""
        return account.outcome(self.journal.events())

    def save(self, name: str, content: str | bytes) -> Path:
        """Write one file of the record, whole or not at all."""
        write_atomic(self.path / name, content)
        return self.path / name

    def write_plan(self, plan: Plan) -> None:
        """Keep the plan beside the journal."""
        self.save(PLAN, json.dumps(plan.as_record(), indent=1, ensure_ascii=False, default=str) + "\n")

    def plan(self) -> Plan | None:
        """The plan of this run, or None.  Raises: RecordDamaged if it was edited."""
        path = self.path / PLAN
        if not path.exists():
            return None
        try:
            return from_record(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise RecordDamaged(
                f"{path} is not a plan that mend wrote: {error}. Nothing was changed. Make a new plan."
            ) from error

    def summary(self) -> dict[str, Any]:
        """record.json, or {} while the run is not sealed."""
        path = self.path / SUMMARY
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def create(slug: str, *, action: Action, parameters: Mapping[str, Any], incident: str = "", of: str = "") -> Record:
    """Make the folder of a new run and write its first event.

    Parameters
    ----------
    action : what the operator asked for
    parameters : validated; they are archived in clear, and never hold a secret
    incident : the name that ties runs together
    of : for apply, undo and resume, the run whose plan this is about

    Raises: InvalidParameter if there is no such runbook, or outputs/ cannot be written.
    """
    runbook = provenance.runbook(slug)
    record = Record(_new_folder(slug))
    record.journal.append("run_opened", {
        "slug": slug, "action": action, "of": of, "incident": incident, "parameters": dict(parameters),
        "who": provenance.who(), "runbook": runbook, "versions": provenance.versions(),
    })  # fmt: skip
    return record


def _new_folder(slug: str) -> Path:
    folder = settings.outputs()
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = folder / f"{stamp}-{slug}-{random.token_hex(3)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o750)  # never an existing one: two runs do not share a record
    except OSError as error:
        raise InvalidParameter(
            f"{folder} cannot be written: {error.strerror}. Nothing was changed. Set MEND_OUTPUTS to a folder that can."
        ) from error
    return path


def runs(incident: str = "") -> list[Record]:
    """The records in outputs/, newest first; with ``incident``, only those that belong to it."""
    folder = settings.outputs()
    found = (
        [Record(path) for path in folder.iterdir() if _RUN_ID.fullmatch(path.name) and path.is_dir()]
        if folder.is_dir()
        else []
    )
    found.sort(key=lambda record: (record.run_id[:16], _opened_ns(record)), reverse=True)
    return [record for record in found if not incident or record.opened.get("incident") == incident]


def _opened_ns(record: Record) -> str:
    """The time of the first event, which is finer than the second in the folder's name."""
    try:
        with (record.path / JOURNAL).open(encoding="utf-8") as file:
            return str(json.loads(file.readline())["time"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def find(run_id: str) -> Record:
    """The run of that id; a beginning, or an end, that only one run has is enough.

    Raises: RunNotFound, naming those that are near or that share it.
    """
    known = runs()
    exact = [record for record in known if record.run_id == run_id]
    found = exact or [
        record for record in known if run_id and (record.run_id.startswith(run_id) or record.run_id.endswith(run_id))
    ]
    if len(found) == 1:
        return found[0]
    names = [record.run_id for record in known]
    near = [record.run_id for record in found] or difflib.get_close_matches(run_id, names, n=3, cutoff=0.5) or names[:3]
    what = f"{len(found)} runs are called {run_id!r}" if found else f"No run is called {run_id!r}"
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    raise RunNotFound(
        f"{what} in {settings.outputs()}. Nothing was changed.{hint} `mend runs` lists what there is.", near=near
    )


def children(run_id: str) -> list[Record]:
    """The applies, undos and resumes of a run, newest first."""
    return [record for record in runs() if record.opened.get("of") == run_id]


def document(record: Record) -> dict[str, Any]:
    """What ``--json`` prints: the same words as the record."""
    return account.document(record.run_id, str(record.path), record.journal.events(), record.plan())


def seal(
    record: Record, *, secrets: Sequence[str] = (), notebook: Path | Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Finish a record: look for secrets, write report.html, then record.json over everything.

    May be called again; the record is then sealed as it stands.

    Parameters
    ----------
    secrets : what must not be in it
    notebook : the executed notebook as a file or as made by ``rebuild``; default the record's own, where there is one

    Returns
    -------
    The content of record.json.

    Raises: LeakFound; record.json then says ``failed`` and names the file, and no report is kept.
    """
    from mend.record import report

    if isinstance(notebook, Mapping):
        notebook = record.save(NOTEBOOK, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    events = record.journal.events()
    words = _plain_words(record, events)
    leak = leaks.scan(record.path, secrets=secrets, words=words)
    if not leak:
        record.save(REPORT, report.page(record, notebook or record.path / NOTEBOOK))
        leak = leaks.scan(record.path, secrets=secrets, words=words)
    if leak:
        (record.path / REPORT).unlink(missing_ok=True)
    content = account.summary(record.run_id, events, files=integrity.hashes(record.path), leak=leak)
    record.save(SUMMARY, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if leak:
        raise LeakFound(
            f"{record.path / leak} holds a secret. The record was not archived. Rotate the secret, and let nothing of the folder out. "
            "Where a revision sets a password in SQL, let it take that from its environment, then make a new plan.",
            file=leak,
        )
    return content


def rebuild(template: Path, cells: Sequence[tuple[str, Sequence[Mapping[str, str]]]]) -> dict[str, Any]:
    """The notebook that was executed, put together from its template and from what each cell showed.

    For kernels that do not know the file they run in: plain papermill, JupyterLab.

    Parameters
    ----------
    cells : (source, outputs as MIME bundles) of each code cell that ran, in order; of a cell that ran twice, the last counts

    Returns
    -------
    A notebook of format 4.5.  A cell that did not run has no execution count; one that is not in the template stands where it ran.
    """
    notebook: dict[str, Any] = json.loads(template.read_text(encoding="utf-8"))
    at = -1
    for count, (source, outputs) in enumerate(cells, start=1):
        same = [
            n
            for n, cell in enumerate(notebook["cells"])
            if cell["cell_type"] == "code" and "".join(cell["source"]).strip() == source.strip()
        ]
        if same:
            at = same[0]
        else:
            at += 1
            notebook["cells"].insert(at, {"cell_type": "code", "id": f"ran-{count}", "metadata": {}, "source": source})
        shown = [{"output_type": "display_data", "metadata": {}, "data": dict(bundle)} for bundle in outputs]
        notebook["cells"][at] |= {"execution_count": count, "outputs": shown}
    return notebook


def _plain_words(record: Record, events: Sequence[journal.Event]) -> set[str]:
    """What a record says for other reasons than to give a password away."""
    target, opened = account.last(events, "target_seen"), record.opened
    said = [
        target.get("role"),
        target.get("session_role"),
        target.get("database"),
        opened.get("slug"),
        *opened.get("who", {}).values(),
    ]
    return {str(word) for word in said if word} | {
        "postgres",
        "postgresql",
        "password",
        "alembic",
        "public",
        "mend",
        "localhost",
    }


def verify(record: Record) -> Verdict:
    """Whether a record is what it was when it was sealed: whole, edited, truncated, unfinished or missing."""
    return integrity.verify(record.path)


def verify_against_target(record: Record, conn: Connection, *, schema: str = "mend") -> Verdict:
    """The same, and whether the journal is the one that the target remembers, where an editor of the files cannot reach."""
    from mend.record import ledger

    return integrity.against(record.path, ledger.anchor(conn, schema, record.run_id))

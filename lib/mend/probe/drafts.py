"""What alembic would write, without its writing it: a new revision file, and a revision as SQL."""

from __future__ import annotations

import io
import tempfile
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from alembic import util
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

from mend.probe.environment import Project, versions
from mend.probe.wire import Enough

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def tell_draft(project: Project) -> None:
    """Action ``draft``: the path and the text of the revision file that ``alembic merge`` (or ``revision``) would make.

    ``down``: its parents; ``at``: its date in seconds since 1970, so that a plan made twice is the same twice.
    """
    asked, script = project.asked, project.script
    drafted: dict[str, Any] = {}

    def kept(src: Any, dest: Any, **values: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "draft.py"
            util.template_to_file(type(src)(src), type(dest)(file), script.output_encoding, **values)
            drafted.update(path=str(Path(str(dest)).absolute()), text=file.read_text(encoding=script.output_encoding))
        raise Enough

    script._generate_template = kept  # type: ignore[method-assign]
    script._generate_create_date = lambda: _date(asked["at"])  # type: ignore[method-assign]
    script._ensure_directory = lambda path: None  # type: ignore[method-assign]
    with suppress(Enough):
        script.generate_revision(
            asked["id"],
            asked["message"],
            head=tuple(asked["down"]) or "base",
            splice=True,
            version_path=asked.get("version_path") or None,
            config=project.config,
        )
    hooks = getattr(script, "hooks", None) or getattr(script, "hook_config", None)
    project.wire.tell("draft", **drafted, hooks=bool(hooks))
    project.wire.tell("done", **versions())


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc).replace(tzinfo=None)


def tell_sql(project: Project) -> None:
    """Action ``sql``: the SQL that ``alembic upgrade --sql`` would print for each revision.  No connection is made."""
    for revision in project.asked["revisions"]:
        buffer = io.StringIO()
        project.config.output_buffer = buffer
        script = ScriptDirectory.from_config(project.config)
        down = script.get_revision(revision).down_revision or "base"
        _render(project, script, revision, down if isinstance(down, str) else down[0])
        project.wire.tell("sql", revision=revision, sql=buffer.getvalue())
    project.wire.tell("done", **versions())


def _render(project: Project, script: Any, revision: str, down: str) -> None:
    def work(heads: Any, context: Any) -> Any:
        return [s for s in script._upgrade_revs(revision, down) if s.revision.revision == revision]

    with EnvironmentContext(
        project.config, script, fn=work, as_sql=True, starting_rev=down, destination_rev=revision, tag=None
    ):
        script.run_env()

"""There and back: each revision of a path is upgraded, taken back and upgraded again in a scratch database, and what that leaves is told.

Every leg runs in a process of its own, as in real life: revisions keep state in modules, and alembic remembers the enums that it
made.  A fork spares the imports, env.py's too.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path

from alembic.runtime.migration import MigrationStep

from mend.probe.connects import Connects
from mend.probe.environment import Project, modules, versions
from mend.probe.recorder import Recorder, changed
from mend.probe.sessions import query, sqlstate
from mend.probe.start import revive_transaction, start_at
from mend.probe.wire import Refused, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Optional

    Snapshot = dict[tuple[str, str], str]


def tell_back(asked: dict[str, Any], wire: Wire) -> None:
    """Action ``back``: prove each revision of ``path``, oldest first, then walk all the way down, then prove those of ``above``.

    ``below``: the revisions to upgrade to first; ``upto``: by revision, those to upgrade to where the database must be made anew.
    """
    connects = Connects(asked)  # to a database that is not there yet: what an import asks for, it does not get
    project = Project(asked, wire)
    _import_beforehand(project)
    Back(project, connects).run()
    wire.tell("done", modules=modules(), **versions())


class Back:
    """The order of the legs; what the catalog was after the last one that went well."""

    def __init__(self, project: Project, connects: Connects) -> None:
        self.project, self.wire, self.asked = project, project.wire, project.asked
        self.connects, self.databases = connects, 0
        self.place: dict[str, str] = {}
        self.stands: Snapshot = {}

    def run(self) -> None:
        path, above = list(self.asked["path"]), list(self.asked.get("above") or [])
        built = self._fresh(list(self.asked["below"]))
        if built is None:
            return
        self.stands = built
        self.wire.tell("base", rows=_rows(built))
        clean = True
        for n, revision in enumerate([*path, *above]):
            if n == len(path) and len(path) > 1:
                self._whole(path[::-1], clean)
                clean = False
            if not clean and self._fresh(self._reached(n)) is None:
                return
            after = self._leg("up", revision)
            if after is None:  # some upgrades run only in one process with those before them
                after = self._fresh(list(self.asked["upto"][revision]))
            if after is None:
                return
            self.wire.tell("up", revision=revision, changes=changed(self.stands, after))
            self.stands = after
            clean = self._there_and_back(revision)
        if not above and len(path) > 1:
            self._whole(path[::-1], clean)

    def _reached(self, n: int) -> list[str]:
        """The goals of a database that is just below the n-th revision."""
        everything = [*self.asked["path"], *(self.asked.get("above") or [])]
        return list(self.asked["upto"][everything[n - 1]] if n else self.asked["below"])

    def _there_and_back(self, revision: str) -> bool:
        """Take a revision back and upgrade it again; whether the database is as if nothing had been."""
        down = self._leg("down", revision)
        if down is None:
            return self._leg("look", "") == self.stands
        self.wire.tell("down", revision=revision, changes=changed(self.stands, down))
        again = self._leg("again", revision)
        if again is None:
            return False
        self.wire.tell("again", revision=revision, changes=changed(self.stands, again))
        return again == self.stands

    def _whole(self, path: list[str], clean: bool) -> None:
        """All of the path in one run, newest first, as ``alembic downgrade`` does it."""
        if not clean and self._fresh(self._reached(len(path))) is None:
            return
        down = self._leg("whole", ",".join(path))
        if down is not None:
            self.wire.tell("whole", changes=changed(self.stands, down))

    def _fresh(self, goals: list[str]) -> Optional[Snapshot]:
        """A new scratch database, upgraded to these revisions."""
        self.place = {**self.asked["scratch"], "dbname": "%s_%d" % (self.asked["scratch"]["dbname"], self.databases)}
        self.databases += 1
        self.wire.ask("fresh", name=self.place["dbname"])
        return self._leg("build", ",".join(goals))

    def _leg(self, kind: str, revisions: str) -> Optional[Snapshot]:
        """The catalog after one leg; None where it failed, which it told."""
        with tempfile.TemporaryDirectory() as folder:
            left = Path(folder, "catalog.json")
            child = os.fork()
            if not child:
                self.connects.lead(self.place)
                Leg(self.project, kind, [one for one in revisions.split(",") if one]).run_and_exit(left)
            if os.waitpid(child, 0)[1] or not left.exists():
                return None
            return {(kind, identity): text for kind, identity, text in json.loads(left.read_text(encoding="utf-8"))}


class Leg:
    """One run of env.py: ``build``, ``up``, ``down``, ``again``, ``whole`` or ``look``."""

    def __init__(self, project: Project, kind: str, revisions: list[str]) -> None:
        self.project, self.kind, self.revisions = project, kind, revisions
        self.now = ""
        self.recorder: Optional[Recorder] = None
        self.seen: list[list[str]] = []

    def run_and_exit(self, left: Path) -> None:
        wire = self.project.wire
        try:
            start_at(list(self.project.asked.get("start") or []) if self.kind == "build" else [])
            if self.kind == "down":
                self.recorder = Recorder(
                    {"revision": self.revisions[0], "snapshot_sql": self.project.asked["snapshot_sql"]}, wire
                )
                self.recorder.listen()
            elif self.kind == "up":  # without snapshots: only what it does to rows is of interest
                self.recorder = Recorder({"revision": self.revisions[0]}, wire)
                self.recorder.listen()
            self.project.run(self._work, self.revisions[-1] if self.revisions else "heads")
            if not self.seen:
                raise Refused("env.py ran no migrations")
            left.write_text(json.dumps(self.seen), encoding="utf-8")
        except BaseException as error:  # noqa: BLE001 it is told to mend, and this process is over
            traceback.print_exc()
            sys.stderr.flush()
            self._tell_statements()
            wire.tell("failed", leg=self.kind, revision=self.now, kind=type(error).__name__, sqlstate=sqlstate(error), message=str(getattr(error, "orig", None) or error),
                      refused=isinstance(error, Refused), sql=self.recorder.failed_sql if self.recorder else "", modules=modules())  # fmt: skip
            os._exit(1)
        self._tell_statements()
        os._exit(0)

    def _work(self, heads: Any, context: Any) -> Iterator[Any]:
        self.project.wire.tell("context", version_table=context.version_table, version_table_schema=context.version_table_schema,
                               per_migration=bool(context._transaction_per_migration))  # fmt: skip
        if self.kind in ("down", "whole"):
            for revision in self.revisions:
                self.now = revision
                script = self.project.script.get_revision(revision)
                step: Any = MigrationStep.downgrade_from_script(self.project.script.revision_map, script)
                self._wrap(step, context)
                yield step
        else:
            for goal in self.revisions:
                for step in list(self.project.script._upgrade_revs(goal, heads)):
                    self._wrap(step, context)
                    yield step
                heads = context.get_current_heads()
        context.connection.connection.commit()  # the version row too, whatever env.py does about transactions
        self.seen = [list(row) for row in query(context.connection, self.project.asked["snapshot_sql"])]

    def _wrap(self, step: Any, context: Any) -> None:
        move, identity = step.migration_fn, step.revision.revision

        def run(**keywords: Any) -> None:
            self.now = identity
            revive_transaction(context)
            if self.recorder:
                self.recorder.now = identity
                self.recorder.enter(context.connection)
                self.recorder.follow(move, keywords)
            else:
                move(**keywords)
            context.connection.connection.commit()

        step.migration_fn = run

    def _tell_statements(self) -> None:
        if self.recorder is None:
            return
        if self.kind == "up":
            rows = [one["says"] for one in self.recorder.statements if one["data"]]
            self.project.wire.tell("rows", revision=self.revisions[0], says=list(dict.fromkeys(rows)))
            return
        for statement in self.recorder.statements:
            self.project.wire.tell("statement", revision=self.revisions[0], **statement)
        self.project.wire.tell("recorded", revision=self.revisions[0], reads=list(dict.fromkeys(self.recorder.reads)), looks=self.recorder.looks,
                               warnings=list(dict.fromkeys(self.recorder.warnings)))  # fmt: skip


def _rows(catalog: Snapshot) -> list[list[str]]:
    return [[kind, identity, text] for (kind, identity), text in sorted(catalog.items())]


def _import_beforehand(project: Project) -> None:
    """The revisions' modules and what env.py imports, once for all legs; what cannot be imported alone, a leg imports."""
    list(project.script.walk_revisions())
    env = Path(project.script.dir, "env.py")
    try:
        tree = ast.parse(env.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in tree.body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in names:
            with suppress(Exception):
                importlib.import_module(name)

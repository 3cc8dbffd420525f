"""The real upgrade() of one revision on the real target, under guard: every statement is told before it is sent."""

from __future__ import annotations

import re

from sqlalchemy import event
from sqlalchemy.engine import Engine

from mend.probe.environment import Project, versions
from mend.probe.recorder import Recorder
from mend.probe.sessions import describe, query
from mend.probe.sqltext import first_word, kind_of, literal, normal, skeleton
from mend.probe.wire import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Optional


def run_upgrade(project: Project, recorder: Recorder) -> None:
    """Action ``upgrade``: the real upgrade() of one revision, its done statements left out, each one told before it is sent.

    ``recorded``: every statement of the revision that a replay could see.  Another one comes from rows that upgrade() reads; with
    ``rows`` = ``leave`` such a change of rows was made already and is left out too.
    """
    wire, skip = project.wire, [normal(sql) for sql in project.asked.get("skip", [])]
    recorded = {normal(sql) for sql in project.asked.get("recorded", [])}
    leave_rows = project.asked.get("rows") == "leave"
    recorder.listen()
    started: list[str] = []
    unlimited: dict[str, Any] = {}  # limits that are off for the statement that runs, and its connection

    def withhold(cursor: Any, statement: str, parameters: Any, context: Any) -> Optional[bool]:
        draft, sent = recorder.draft, kind_of(skeleton(statement)) == "statement"
        done = bool(draft and skip and normal(draft["sql"]) == skip[0])
        if done:
            skip.pop(0)
        elif draft and leave_rows and normal(draft["sql"]) not in recorded:
            done = first_word(skeleton(draft["sql"])) in ("insert", "update", "delete", "merge", "with")
        if started and (sent or draft):
            wire.ask("statement", sql=draft["sql"] if draft else normal(statement), skipped=done, revision=recorder.now if draft else "",
                     autocommit=bool(draft and draft["autocommit"]))  # fmt: skip
        if done:
            cursor.execute("select where false")  # no rows, rowcount 0: a loop that runs until nothing is left ends
        elif draft and re.search(r"\bconcurrently\b", skeleton(statement), re.IGNORECASE):
            for name in ("lock_timeout", "statement_timeout"):
                query(context.root_connection, "set %s = 0" % name)
                unlimited[name] = context.root_connection
        return True if done else None

    def limit_again(conn: Any, *rest: Any) -> None:
        """The time limits were off for a CONCURRENTLY: there they would leave an invalid index behind."""
        for name in list(unlimited):
            value = project.asked.get("settings", {}).get(name)
            query(unlimited.pop(name), "set %s = %s" % (name, literal(value)) if value else "reset " + name)

    def before_commit(conn: Any) -> None:
        if started:
            assigned = query(conn, "select pg_catalog.pg_current_xact_id_if_assigned()::text")[0][0]
            if assigned:
                wire.ask("commit", xid=assigned)

    def work(heads: Any, context: Any) -> list[Any]:
        steps = list(project.script._upgrade_revs(recorder.revision, heads))
        found = [step.revision.revision for step in steps]
        if found != [recorder.revision]:
            raise Refused(
                "alembic would run %s, but the plan is for %s alone" % (found or "nothing", recorder.revision)
            )
        if not started:
            wire.ask("context", **describe(context))
        started.append(recorder.revision)
        steps[0].migration_fn = _watched_upgrade(steps[0].migration_fn, recorder, skip)
        return steps

    event.listen(Engine, "do_execute", withhold)
    event.listen(Engine, "do_executemany", withhold)
    event.listen(
        Engine, "do_execute_no_params", lambda cursor, statement, context: withhold(cursor, statement, None, context)
    )
    event.listen(Engine, "commit", before_commit)
    event.listen(Engine, "after_cursor_execute", limit_again)
    project.run(work, recorder.revision)
    wire.tell("done", **versions())


def _watched_upgrade(upgrade: Callable[..., Any], recorder: Recorder, skip: list[str]) -> Callable[..., Any]:
    def run(**keywords: Any) -> None:
        recorder.now, recorder.inside = recorder.revision, True
        recorder.follow(upgrade, keywords)
        if skip:
            raise Refused(
                "upgrade() did not send %d statements that the plan leaves out, first: %s" % (len(skip), skip[0][:200])
            )

    return run

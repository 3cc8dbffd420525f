"""Two schemas and two versions of an application: which works with which, asked of real databases.

The schema that is not the live one is made in a scratch database: the live schema's copy with the pending revisions run on it, or the
history as far as the version before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from mend.conflict.walks import Trip, Walker
from mend.database.target import Target
from mend.diagnosis import Site
from mend.errors import MendError, ProjectBroken, ReplayFailed
from mend.histories.history import History
from mend.histories.project import Environment, Project
from mend.repairs.versions import VersionTable
from mend.replays import scratch
from mend.skew import prepared
from mend.skew.application import Application
from mend.skew.prepared import Answer, Verdict

_MOST_STOPS = 25  # pending revisions after each of which the application is tried


@dataclass(frozen=True)
class Schema:
    """One of the two schemas of the matrix.  ``at``: its revisions; ``live``: it is the target's own; ``why_not``: why it could not be made."""

    name: str
    at: tuple[str, ...]
    live: bool
    why_not: str = ""

    def says(self) -> str:
        """In words."""
        return f"{self.name} schema ({', '.join(self.at) or 'no revision'}{', live' if self.live else ', in scratch'})"


@dataclass(frozen=True)
class Cell:
    """One application with one schema."""

    application: Application
    schema: Schema
    answers: tuple[Answer, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """``breaks`` over ``could_not_check`` over ``works``."""
        verdicts = {one.verdict for one in self.answers}
        if "breaks" in verdicts:
            return "breaks"
        missing = not self.answers or self.application.why_not or "could_not_check" in verdicts
        return "could_not_check" if missing else "works"

    @property
    def why(self) -> str:
        """What breaks first, or why it could not be checked; '' where it works."""
        bad = [one for one in self.answers if one.verdict == self.verdict]
        if self.verdict == "works":
            return ""
        if self.verdict == "could_not_check" and not bad:
            lacking = "nothing was named for this version: metadata or statements"
            return (
                self.application.why_not
                or self.schema.why_not
                or (lacking if not self.application.given else "it expects nothing")
            )
        first = f"{bad[0].where}: {bad[0].why}"
        return f"{first}, and {len(bad) - 1} more" if len(bad) > 1 else first


@dataclass(frozen=True)
class Other:
    """Asks both applications about both schemas."""

    site: Site
    project: Project
    past: History
    table: VersionTable
    server: scratch.Scratch
    environment: Environment | MendError
    applications: tuple[Application, ...]
    pending: tuple[str, ...]
    old_heads: tuple[str, ...]
    behind: bool  # the code knows less than the database
    between: bool  # a change in phases was begun

    def matrix(self) -> tuple[tuple[Cell, ...], str]:
        """The four cells, and the first pending revision after which the new application works."""
        live = Schema("old" if self.pending else "new", self.table.rows, True)
        stops = self._stops()
        asks = any(one.tables or one.said for one in self.applications)
        found: dict[str, dict[str, tuple[Answer, ...]]] = {}
        why_not = "" if stops else "there is no revision before it"
        if stops and asks:
            found, why_not = self._walked(stops)
        at = (
            tuple(self.past.heads if self.behind else self.old_heads or self._before())
            if not self.pending
            else stops[-1:]
        )
        elsewhere = Schema("new" if self.pending else "old", at, False, why_not)
        last = found.get(stops[-1], {}) if stops else {}
        cells = []
        for one in sorted(self.applications, key=lambda app: app.name != "old"):
            here = Cell(one, live, self._here(one))
            there = Cell(one, elsewhere, last.get(one.name, ()))
            cells += [here, there] if self.pending else [there, here]
        new = next(one for one in self.applications if one.name == "new")
        fits = [
            stop
            for stop in stops
            if self.pending and Cell(new, elsewhere, found.get(stop, {}).get("new", ())).verdict == "works"
        ]
        return tuple(cells), fits[0] if fits else ""

    def _stops(self) -> tuple[str, ...]:
        if self.pending:
            return self.pending if len(self.pending) <= _MOST_STOPS else self.pending[-1:]
        return tuple(self.past.heads) if self.behind else self.old_heads or self._before()

    def _before(self) -> tuple[str, ...]:
        """The revisions before the newest ones."""
        return tuple(dict.fromkeys(parent for row in self.table.rows for parent in self.past.parents(row)))

    def _here(self, one: Application) -> tuple[Answer, ...]:
        if not (one.tables or one.said):
            return ()
        with self.site.target.reading(self.site.run_id) as conn:
            return self._asked(conn, one)

    def _asked(self, conn: Connection, one: Application) -> tuple[Answer, ...]:
        if isinstance(self.environment, Environment):
            conn.exec_driver_sql("select set_config('search_path', %s, true)", (self.environment.search_path,))
        return prepared.answers(conn, one)

    def _walked(self, stops: Sequence[str]) -> tuple[dict[str, dict[str, tuple[Answer, ...]]], str]:
        """What each application gets for an answer at each stop, and why it did not come to the last."""
        try:
            with self.server.database() as place:
                start = self._prepared(place)
                return self._walk(place, start, stops)
        except ReplayFailed as error:
            return {}, error.message
        except ProjectBroken as error:
            return {}, error.message

    def _prepared(self, place: Mapping[str, str]) -> tuple[str, ...]:
        """Make the scratch database what the walk starts from: the live schema's copy, the named base, or nothing; its revisions.

        Between the phases of a change the live schema has a part of it already, so that the revisions cannot run on a copy.
        """
        own = self.site.target.settings
        if self.pending and not self.between:
            self.site.progress("copying the live schema")
            scratch.copy_schema(self.site.target.conninfo, place, major=self.server.major)
            return self.table.rows
        if own.base:
            scratch.load(own.base.read_text(encoding="utf-8"), place)
            return (self.past.get(own.base_revision).id,) if own.base_revision else ()
        return ()

    def _walk(
        self, place: Mapping[str, str], start: Sequence[str], stops: Sequence[str]
    ) -> tuple[dict[str, dict[str, tuple[Answer, ...]]], str]:
        found: dict[str, dict[str, tuple[Answer, ...]]] = {}

        def arrived(stop: str) -> None:
            self.site.progress(f"asking the schema at {stop}")
            with Target("scratch", place).reading(self.site.run_id) as conn:
                found[stop] = {one.name: self._asked(conn, one) for one in self.applications}

        (walked, *_) = Walker(self.project, self.past).walk([Trip(place, start, stops)], arrived=arrived)
        return found, f"revision {walked.failed_at} fails in scratch: {walked.error}" if walked.error else ""

"""A way down from a database's version rows: which revisions, what each of their downgrades would do here, and what is in the way.  Reads only.

Scratch tells what every downgrade() does (`downgrades`); the live database what hangs on what it drops, which content goes, and which rows
refuse.  What to do about it is in `descent_ways`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from mend.change import ddl, weights
from mend.change.kept import Facets, Keeper
from mend.database import catalog, holders, parameters, queries
from mend.database.catalog import Change
from mend.diagnosis import Site
from mend.errors import MendError, ProjectBroken, ReplayFailed
from mend.histories import history
from mend.histories.history import History
from mend.histories.project import Environment, Project
from mend.journal import sha256
from mend.mismatch import drift, drifted
from mend.repairs import halfway, steps
from mend.repairs.versions import VersionTable
from mend.replays import downgrades, scratch
from mend.replays.downgrades import Proof, Proven
from mend.rollback import goal, hanging, toll
from mend.rollback.dependents import Key, Mention
from mend.rollback.hanging import Hanging, Hung
from mend.rollback.pieces import Piece, facets_of, pieces_of
from mend.rollback.toll import Loss, Mark


@dataclass(frozen=True)
class Facts:
    """Everything that a plan is made from.  ``path``: the revisions to be taken back, newest first; ``down_to``: what is said of the goal.

    ``choices``: the version rows to go back from, where there are several and none was named.  ``roles``: those that the session may act as.
    """

    past: History
    project: Project
    environment: Environment | MendError
    table: VersionTable
    version_rows: pd.DataFrame
    version_sql: str
    path: tuple[str, ...]
    down_to: str
    choices: tuple[str, ...]
    proven: Proven
    live: Facets
    migrator: str
    pieces: tuple[Piece, ...]
    hanging: tuple[Hanging, ...]
    mentions: tuple[Mention, ...]
    losses: tuple[Loss, ...]
    obstacles: Mapping[str, tuple[str, str]]
    leftovers: tuple[tuple[str, Change], ...]
    half_done: Mapping[str, str]
    used: Mapping[Key, tuple[Key, ...]]
    spoken_of: tuple[Mention, ...]
    keeper: Keeper
    sizes: Mapping[str, weights.Size]
    marks: tuple[Mark, ...]
    roles: frozenset[str]
    orders: Mapping[str, tuple[str, ...]]

    @property
    def proofs(self) -> tuple[Proof, ...]:
        """Of the path, newest first."""
        return tuple(self.proven.proofs[one] for one in self.path if one in self.proven.proofs)

    @cached_property
    def expected_now(self) -> Facets:
        """What the history makes of the version rows as they are."""
        return self._as_here(self.proven.at(self.path[0] if self.path else ""))

    @cached_property
    def expected_then(self) -> Facets:
        """What it makes of those at the goal."""
        return self._as_here(self.proven.base)

    def _as_here(self, facets: Facets) -> Facets:
        return drift.as_role(facets, scratch=self.proven.migrator, migrator=self.migrator)

    @cached_property
    def rows_then(self) -> tuple[str, ...]:
        """The version rows at the goal."""
        return downgrades.tips(self.past, self.past.ancestors(self.table.rows) - set(self.path))

    @cached_property
    def after_path(self) -> Facets:
        """The catalog here once the path is taken back, what hangs on it left out."""
        dropped = {key for key, _ in facets_of([one.key for one in self.hanging], self.live)}
        state = {key: text for key, text in self.live.items() if key not in dropped}
        for piece in self.pieces:
            state = steps.moved(state, piece.changes)
        return state

    def why_gone(self, one: Hanging) -> str:
        """Why a dependent cannot be made again, exactly as it was; '' where it can."""
        return self._why_gone(one.key, frozenset({one.key}))

    def _why_gone(self, key: Key, seen: frozenset[Key]) -> str:
        for need in self._needs[key]:
            if need in seen:
                continue
            if need in self._needs:
                if deeper := self._why_gone(need, seen | {need}):
                    return f"needs {' '.join(need)}, which {deeper}"
            elif need not in self.after_path:
                return f"needs {' '.join(need)}, which goes"
        return ""

    @cached_property
    def _needs(self) -> Mapping[Key, tuple[Key, ...]]:
        return {one.key: one.on for one in self.hanging}

    def first_stop(self) -> tuple[str, str]:
        """The first revision, newest first, at which plain alembic would stop, and why; ('', '') where it would not."""
        for revision in self.path:
            if why := self.why_stops(revision):
                return revision, why
        return ("", "") if self.proven.stops is None else (self.proven.stops.revision, self.proven.stops.says)

    def why_stops(self, revision: str) -> str:
        """Why plain ``alembic downgrade`` fails at a revision; '' where it does not."""
        proof = self.proven.proofs.get(revision)
        if proof is None:
            return "it could not be proven"
        if proof.failed:
            return proof.failed.says
        if hanging := [
            f"{one.kind} {one.identity}" for one in self.hanging if one.revision == revision and not one.cascade
        ]:
            return f"2BP01: {', '.join(hanging[:4])}{' ...' if len(hanging) > 4 else ''} depend on what it drops"
        if lacking := [c for p in self.pieces if p.revision == revision for c in p.lacking]:
            return f"{lacking[0].kind} {lacking[0].identity}, which it drops or changes, is not here"
        return next((says for one, says in self.obstacles.values() if one == revision), "")

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """What else the journal keeps: every facet that a downgrade does not give back."""
        rows = [{"revision": p.revision, "kind": c.kind, "identity": c.identity, "before": c.before, "after": c.after} for p in self.proofs for c in p.left]  # fmt: skip
        return {"left": rows}


def look(site: Site, project: Project, *, revision: str, base: str, base_revision: str) -> Facts:
    """Read the project and the target, prove the way down in scratch, and find what is in its way.

    Raises: InvalidParameter, ProjectBroken, RevisionNotFound, ReplayFailed, ScratchUnavailable, PrivilegeMissing.
    """
    past = history.read(project.alembic_ini, python=project.python)
    drifted.require_whole(past)
    with ThreadPoolExecutor(1) as beside:  # env.py takes as long as its imports
        asked = beside.submit(halfway.probed, project)
        with holders.named(site.target, site.run_id), site.target.reading(site.run_id) as conn:
            tables, found = history.version_tables(conn), history.version_rows(conn)
            live = catalog.facets(catalog.snapshot(conn))
            users = tuple(queries.frame(conn, "target/roles")["role"])
            roles = frozenset(queries.frame(conn, "rollback_failure/roles")["role"])
        environ = asked.result()
    table = halfway.version_table(environ, tables, found)
    applied = _applied(past, table)
    path, choices = goal.chosen(past, table.rows, revision)
    nexts = [one for one in history.pending(past, table.rows) if set(past.parents(one)) <= applied]
    above = () if revision == "here" else tuple(nexts[:1])
    made = _proven(site, project, downgrades.way(past, applied, path[::-1], above), users, base, base_revision)
    migrator = drift.migrator(made.at(path[0] if path else ""), live, scratch=made.migrator)
    pieces, state = [], dict(live)
    for one in path:
        if one in made.proofs:
            mine, state = pieces_of(made.proofs[one], state, scratch=made.migrator, migrator=migrator)
            pieces += mine
    hung = Hung(site, live, pieces)
    pieces = [hung.with_silent(piece) for piece in pieces]
    in_the_way = hung.hanging()
    left, half_done = hanging.leftovers(made, live)
    return Facts(
        past=past,
        project=project,
        environment=environ,
        table=table,
        version_rows=halfway.placed(found, table, past),
        version_sql=tables.attrs["sql"],
        path=path,
        down_to=revision,
        choices=choices,
        proven=made,
        live=live,
        migrator=migrator,
        pieces=tuple(pieces),
        hanging=in_the_way,
        mentions=hung.mentions,
        losses=toll.losses(site, pieces, live),
        obstacles=toll.obstacles(site, pieces, live),
        leftovers=left,
        half_done=half_done,
        used=hanging.used(site, left),
        spoken_of=hanging.spoken_of(site, left),
        keeper=Keeper(
            site.target.settings.schema_name, sha256(f"rollback {site.last_run}")[:16], steps.primary_keys(live)
        ),
        sizes=toll.sizes(site, pieces, in_the_way),
        marks=toll.marks(site, pieces, in_the_way),
        roles=roles,
        orders=toll.orders(site, pieces),
    )


def _applied(past: History, table: VersionTable) -> set[str]:
    if unknown := [row for row in table.rows if row not in past.revisions]:
        raise ProjectBroken(
            f"The version table {table.schema}.{table.name} holds {', '.join(unknown)}, which no file has, so nobody knows what a downgrade would "
            f"take back. Nothing was changed. Mend that first ({parameters.pointer('migration_conflict')})."
        )
    return past.ancestors(table.rows)


def _proven(
    site: Site, project: Project, way: downgrades.Way, users: Sequence[str], base: str, base_revision: str
) -> Proven:
    own = site.target.settings
    server = scratch.choose(site.target, version_num=site.identity.version_num, roles=users)
    made = downgrades.proven(
        project, way, scratch=server, base=Path(base) if base else own.base, base_revision=base_revision or own.base_revision,
        progress=lambda done, total, text: site.progress(f"{text} ({done} of {total})"),
    )  # fmt: skip
    if made.unreached and made.unreached.revision in way.path:
        raise ReplayFailed(
            f"Revision {made.unreached.revision} fails in a scratch database, so what its downgrade would do is not known: {made.unreached.says}. "
            "The target was not touched. Give a dump of the schema at a revision from which the history does run: base and base_revision."
        )
    return made


def evidence(facts: Facts) -> dict[str, Any]:
    """What a plan's digest covers: the version rows, the files, and every object that the way down touches or meets."""
    touched = {c.identity for p in facts.pieces for c in p.changes} | {one.identity for one in facts.hanging}
    touched |= {halfway.relation_of(c) for p in facts.pieces for c in p.changes} - {""}
    touched |= {c.identity for _, c in facts.leftovers}
    return {
        "revision": ", ".join(facts.table.rows) or None,
        "version_rows": dict.fromkeys(facts.table.rows, "present"),
        "down": dict.fromkeys(facts.path, "taken back"),
        "files": facts.past.digest,
        "hanging": {f"{one.kind} {one.identity}": facts.live.get(one.key) for one in facts.hanging},
        "objects": {
            f"{kind} {identity}": text
            for (kind, identity), text in sorted(facts.live.items())
            if identity in touched or ddl.holders(kind, identity, text) & touched
        },
    }

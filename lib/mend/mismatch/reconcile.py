"""From differences to steps: bring the database back to its history, run what never ran, or write the history a revision.  Pure.

Whatever is done, indexes are built and dropped CONCURRENTLY on tables that are there, constraints come NOT VALID and are proven
afterwards, and content that would be lost is kept (``kept``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from mend.change import ddl, weights
from mend.change.kept import Facets, Keeper
from mend.change.renames import explained
from mend.constraints import nulls, unique_index
from mend.database import names, sqltext
from mend.database.catalog import COLUMNS, Change, index_state
from mend.errors import Refused
from mend.journal import sha256
from mend.mismatch.drift import NEVER_RAN, Difference, Drift
from mend.plan import Statement, Step
from mend.repairs import foreign_keys, halfway, patch, steps, versions
from mend.repairs.steps import Wanted
from mend.repairs.versions import VersionTable
from mend.replays.expected import Step as Operation
from mend.replays.recording import Statement as Recorded

_ID_LENGTH = 12


@dataclass(frozen=True)
class Ground:
    """What steps are made on: the live catalog, where content is kept, the server's version, the tables' sizes."""

    live: Facets
    keeper: Keeper
    major: int
    sizes: Mapping[str, weights.Size]

    def after(self, made: Iterable[Step]) -> Ground:
        """The same after those steps."""
        now = dict(self.live)
        for expect in (e for step in made for e in step.after):
            now.pop((expect.kind, expect.identity), None)
            if expect.definition is not None:
                now[expect.kind, expect.identity] = expect.definition
        return replace(self, live=now)

    def named(self, purpose: str) -> Keeper:
        """A keeper whose names are of this purpose only."""
        return replace(self.keeper, key=f"{self.keeper.key}{purpose}")


def revert(chosen: Sequence[Difference], ground: Ground) -> tuple[Step, ...]:
    """The steps that make what was chosen as the history makes it.

    What goes goes first, then what changes, then what comes: of tables that are there, each rule by itself and without blocking.

    Raises: NotInvertible naming what no SQL is known for; Refused where a key cannot be made here, or something would come back empty.
    """
    renames, wanted = _renames([one.reverting() for one in chosen])
    filled = _filled(wanted, ground.live)
    apart = [c for c in wanted if c not in filled and _apart(c, ground.live)]
    together = [c for c in wanted if c not in apart and c not in filled]
    made: tuple[Step, ...] = ()
    gone = [Change(c.kind, c.identity, c.before, None) for c in apart if c.before is not None]
    if gone or together or renames:
        done = [("", [c.reversed() for c in several]) for several in ([*gone, *together], *renames) if several]
        made = steps.take_back(done, says=_said("Take back", chosen), live=ground.live, keeper=ground.named("revert"))
    columns = [wanted_ for wanted_ in filled.values() if wanted_ is not None]
    made += steps.make(columns, live=ground.after(made).live, keeper=ground.named("columns"))
    for n, change in enumerate(sorted(apart, key=_comes)):
        if change.after is not None:
            made += come(replace(change, before=None), ground.after(made), f"come{n}")
    return made


def _renames(changes: Sequence[Change]) -> tuple[list[list[Change]], list[Change]]:
    """The changes that one RENAME each explains, of tables and columns, so that their content stays; and the others.

    Raises: Refused where a table or column goes and its like comes, with more than a rename between them: it would come back empty.
    """
    found: list[list[Change]] = []
    left = list(changes)
    for kind in ("table", "column"):
        gone, come = ([c for c in left if c.kind == kind and getattr(c, side) is None] for side in ("after", "before"))
        for old, new in ((old, new) for old in gone for new in come):
            if old in left and new in left and names.parent(old.identity) == names.parent(new.identity):
                several = explained(old, new, left) if old.before == new.after else []
                found += [several] if several else []
                left = [c for c in left if c not in several]
    _refuse_likes(left)
    return found, left


def _refuse_likes(changes: Sequence[Change]) -> None:
    gone, come = (
        {
            c.identity: _shape(c, changes, side)
            for c in changes
            if c.kind in ("table", "column") and getattr(c, side) is None
        }
        for side in ("after", "before")
    )
    for old, shape in gone.items():
        for new, other in come.items():
            within = names.parent(old)
            if within in gone or names.parent(new) in come or len(names.split(old)) != len(names.split(new)):
                continue
            alike = 2 * len(shape & other) >= max(len(shape), len(other), 1)
            if alike and (len(names.split(old)) == 2 or within == names.parent(new)):
                raise Refused(
                    f"{old} and {new} look like one, renamed or moved, with more changed on it: what goes would be kept in schema mend, and what "
                    "comes would be empty. Nothing was changed. Rename or move it by hand and plan again, or choose for one of them first."
                )


def _shape(change: Change, changes: Sequence[Change], side: str) -> frozenset[str]:
    """A column's type; of a table, its columns."""
    if change.kind == "column":
        return frozenset({str(change.before or change.after)})
    return frozenset(
        f"{names.last(c.identity)} {c.before or c.after}"
        for c in changes
        if c.kind == "column" and getattr(c, side) is None and names.parent(c.identity) == change.identity
    )


def _filled(wanted: Sequence[Change], live: Facets) -> dict[Change, Wanted | None]:
    """Columns that come back with a default, to a table that is there: in one statement, so that every row has a value.

    The default and the rule that go along have None here.
    """
    by_key = {(c.kind, c.identity): c for c in wanted if c.before is None}
    found: dict[Change, Wanted | None] = {}
    for (kind, identity), change in by_key.items():
        default, rule = by_key.get(("default", identity)), by_key.get(("not_null", identity))
        if kind != "column" or default is None or ("table", names.parent(identity)) not in live:
            continue
        along = [default, *([rule] if rule and rule.after == "not null" else [])]
        sql = f"alter table {names.parent(identity)} add column {names.last(identity)} {change.after} default {default.after}"
        sql += " not null" if len(along) > 1 else ""
        found[change] = Wanted(sql, f"Add column {identity}", (change, *along))
        found.update(dict.fromkeys(along))
    return found


def _said(verb: str, chosen: Sequence[Difference]) -> str:
    objects = list(dict.fromkeys(one.object for one in chosen))
    return f"{verb} what differs of {', '.join(objects[:5])}" + (
        f" and {len(objects) - 5} more" if len(objects) > 5 else ""
    )


def _apart(change: Change, live: Facets) -> bool:
    """Whether a change is a rule of a table that is there, which comes without blocking, or an index, which goes so."""
    table = halfway.relation_of(Change(change.kind, change.identity, None, change.after or change.before))
    if not {("table", table), ("matview", table)} & live.keys():
        return False
    if change.kind == "not_null":
        return change.after is not None and ("column", change.identity) in live
    return change.kind in ("index", "constraint") and change.after is not None


def _comes(change: Change) -> tuple[int, str]:
    """Keys before what refers to them."""
    text = change.after or ""
    rank = 0 if text.startswith(("PRIMARY", "UNIQUE", "CREATE UNIQUE")) else 2 if text.startswith("FOREIGN") else 1
    return rank, change.identity


def come(change: Change, ground: Ground, purpose: str) -> tuple[Step, ...]:
    """The steps that make one rule or index of a table that is there, without blocking.  Raises: Refused."""
    text, keeper = str(change.after), ground.named(purpose)
    if change.kind == "index":
        return _index(change, ground.live, keeper)
    if change.kind == "not_null":
        found = nulls.making(
            names.parent(change.identity),
            names.last(change.identity),
            live=ground.live,
            keeper=keeper,
            major=ground.major,
        )
        return (*found.guard, *found.proof)
    if text.startswith(("UNIQUE", "PRIMARY KEY")):
        key = unique_index.making(change, live=ground.live, keeper=keeper)
        if key.why_not:
            raise Refused(f"{change.identity} cannot be made: {key.why_not}. Nothing was changed.")
        return (*key.clear, *key.build)
    if (
        text.startswith("FOREIGN")
        and (reference := foreign_keys.read(change.identity, text))
        and not text.endswith((" NOT VALID", " NOT ENFORCED"))
    ):
        made = foreign_keys.making(reference, ground.live, major=ground.major)
        return (*made.stops, *made.proof)
    return _check(change, ground.live, keeper)


def _index(change: Change, live: Facets, keeper: Keeper) -> tuple[Step, ...]:
    sql = ddl.forward(replace(change, after=index_state(str(change.after))[0]), concurrently=True)[0]
    return steps.make([Wanted(sql, f"Build index {change.identity}", (change,))], live=live, keeper=keeper)


def _check(change: Change, live: Facets, keeper: Keeper) -> tuple[Step, ...]:
    table, name, text = names.parent(change.identity), names.last(change.identity), str(change.after)
    add = f"alter table {table} add constraint {name} {text}"
    if not text.startswith("CHECK") or text.endswith((" NOT VALID", " NOT ENFORCED")):
        return steps.make([Wanted(add, f"Add constraint {name} of {table}", (change,))], live=live, keeper=keeper)
    waiting = f"{text} NOT VALID"
    added = Wanted(
        f"{add} not valid",
        f"Add constraint {name} of {table}, for new rows",
        (replace(change, after=waiting),),
        segment=1,
    )
    proven = Wanted(
        f"alter table {table} validate constraint {name}", f"Prove that every row of {table} satisfies {name}",
        (replace(change, before=waiting),), segment=2,
    )  # fmt: skip
    first, second = steps.make([added, proven], live=live, keeper=keeper)
    drop = Statement(f"alter table {table} drop constraint if exists {name}")
    # The way back drops it as a whole, whether it was proven by then or not.
    back = replace(first.undo[0], statements=(drop,), before=(), after=())
    return replace(first, undo=(back,)), replace(second, undo=(), irreversible="")


# -- what never ran ------------------------------------------------------------------------------------------------------


def repair(operations: Sequence[Operation], ground: Ground, *, reads: Sequence[str]) -> tuple[Step, ...]:
    """The steps that run operations that never ran, in the history's order, with the SQL that the history sends.

    Raises: Refused where that SQL depends on rows, or could not be written out.
    """
    made = {c.identity for one in operations for c in one.changes if c.kind == "table" and c.before is None}
    wanted = [_wanted(s, n, ground, made) for n, one in enumerate(operations) for s in _sendable(one, reads)]
    return steps.make(wanted, live=ground.live, keeper=ground.named("repair"))


def _sendable(one: Operation, reads: Sequence[str]) -> Sequence[Recorded]:
    bad = one.place.revision in reads or not all(statement.rendered for statement in one.statements)
    if bad:
        raise Refused(
            f"Revision {one.place.revision} computes its SQL from what it finds, so only upgrade() itself knows it. Nothing was changed. Take the "
            "other differences back, put the version row to the revision before (option stamp), then run alembic upgrade."
        )
    return one.statements


def _wanted(one: Recorded, n: int, ground: Ground, made: set[str]) -> Wanted:
    """The statement itself; a plain index build of a table that is there becomes a concurrent one."""
    sql, changes = one.sql, one.changes
    index = changes[0] if len(changes) == 1 and changes[0].kind == "index" and changes[0].before is None else None
    if index and ddl.index_table(index.after or "") not in made and " ON ONLY " not in str(index.after):
        return Wanted(
            ddl.forward(index, concurrently=True)[0],
            f"Build index {index.identity}",
            changes,
            segment=n * 1000 + one.segment,
        )
    size = ground.sizes.get(weights.table_changed(sql)) if one.data else None
    path = one.search_path
    settings = (f"set local search_path = {path}",) if path not in ("", '"$user", public') else ()
    return Wanted(
        sql, one.says, changes, sqltext.may_change_rows(sql), (*settings, *one.settings), weights.rows_ceiling(size) if size else None,
        n * 1000 + one.segment,
    )  # fmt: skip


# -- a revision for what was made by hand --------------------------------------------------------------------------------


def adopt(
    chosen: Sequence[Difference], ground: Ground, expected: Facets, *, table: VersionTable, folder: Path, home: Path
) -> tuple[Step, ...]:
    """Write a revision that makes what was made by hand, and record it here, where that is so already.

    Raises: NotInvertible; Refused where the database is at several revisions, an index to adopt is not valid, or a rename is not told.
    """
    if len(table.rows) != 1:
        raise Refused(
            f"The database is at {len(table.rows)} revisions, and a new one can come after one only. Nothing was changed."
        )
    if broken := [one.identity for one in chosen if one.kind == "index" and one.live and index_state(one.live)[1]]:
        raise Refused(
            f"Index {broken[0]} is INVALID: no revision should make it so. Nothing was changed. Choose revert for it."
        )
    changes = [one.reverting().reversed() for one in chosen]
    renames, rest = _renames(changes)
    up = (*(s for one in renames for s in ddl.forward_of(one)), *ddl.forward_of(rest, live=_frame(expected)))
    down = (*ddl.inverse_of(rest, live=_frame(ground.live)), *(s for one in renames for s in ddl.inverse_of(one)))
    revision = sha256(f"{table.rows[0]} {up}")[:_ID_LENGTH]
    text = _revision(revision, table.rows[0], chosen, up, down)
    path = folder / f"{revision}_adopt_what_was_made_by_hand.py"
    diff = patch.unified("", text, patch.relative(path, home))
    written = patch.file_step(
        f"Write revision {revision}, which makes what was made by hand", path, None, text, diff=diff
    )
    return written, recorded(table, (revision,))


def _frame(state: Facets) -> pd.DataFrame:
    return pd.DataFrame([(*key, text) for key, text in state.items()], columns=list(COLUMNS), dtype="str")


def _revision(
    revision: str, down_revision: str, chosen: Sequence[Difference], up: Sequence[str], down: Sequence[str]
) -> str:
    """The file of a revision that adopts what was chosen."""
    named = "\n".join(f"- {one.name}" for one in chosen[:40]) + (
        f"\n- and {len(chosen) - 40} more" if len(chosen) > 40 else ""
    )
    return revision_text(revision, down_revision, f"Adopt what was made by hand\n\n{named}\n", up, down)


def revision_text(revision: str, down_revision: str, doc: str, up: Sequence[str], down: Sequence[str]) -> str:
    """The file of a revision that runs these statements; ``doc``: what it says at its head, ending with a line feed."""
    head = f'"""{_plain(doc)}\nRevision ID: {revision}\nRevises: {down_revision}\n\n"""\n\nfrom alembic import op\n\n'
    graph = f"revision = {revision!r}\ndown_revision = {down_revision!r}\nbranch_labels = None\ndepends_on = None\n\n\n"
    return f"{head}{graph}{function('upgrade', up)}\n\n{function('downgrade', down)}"


def _plain(text: str) -> str:
    """Text that may stand between three quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def function(name: str, statements: Sequence[str]) -> str:
    lines = "".join(f"    op.execute({_constant(_bindless(sql))})\n" for sql in statements) or "    pass\n"
    return f"def {name}() -> None:\n{lines}"


def _constant(sql: str) -> str:
    """A Python string; one of several lines stands as it is, where it may."""
    if "\n" in sql and "\\" not in sql and '"""' not in sql and not sql.endswith('"'):
        return f'"""{sql}"""'
    return repr(sql)


def _bindless(sql: str) -> str:
    """SQL as ``op.execute`` takes it: sqlalchemy.text reads a colon before a word as a parameter, and takes a backslash before one away."""
    kept = re.sub(r"\\(:[\w$]*)(?![:\w$])", r"\\\\\1", sql)
    return re.sub(r"(?<![:\w$\\]):([\w$]+)(?![:\w$])", r"\\:\1", kept)


# -- version rows --------------------------------------------------------------------------------------------------------


def recorded(table: VersionTable, rows: Sequence[str]) -> Step:
    """Have the version table hold exactly these rows, by compare-and-set."""
    gone = [row for row in table.rows if row not in rows]
    come = [row for row in rows if row not in table.rows]
    moves = [versions.change(table, old, new) for old, new in zip(gone, come, strict=False)]
    moves += [versions.remove(table, row) for row in gone[len(come) :]]
    for row in come[len(gone) :]:
        moves.append(versions.advance(table, row, ()))
        table = replace(table, exists=True)
    forward: tuple[Statement, ...] = tuple(s for move in moves for s in move.forward)
    back = tuple(s for move in reversed(moves) for s in move.back)
    was = ", ".join(table.rows) or "nothing"
    return Step(
        says=f"Record {', '.join(rows) or 'nothing'} instead of {was}",
        statements=forward,
        undo=(Step(says=f"Record {was} again", statements=back),),
    )


def never_ran(chosen: Iterable[Difference], compared: Drift) -> tuple[Operation, ...]:
    """The operations that chosen differences belong to and that never ran.

    Of a revision no operation of which ran, those without a trace in the catalog (changes of rows) never ran either.
    """
    wanted = {(one.revision, one.index) for one in chosen if one.attribution == NEVER_RAN}
    whole = {
        one.revision
        for one in compared.revisions
        if one.state == NEVER_RAN and all((one.revision, n) in wanted for n in one.never_ran)
    }
    return tuple(
        one
        for one in compared.expected.steps[: compared.at]
        if one.place.revision in whole or (one.place.revision, one.place.operation) in wanted
    )

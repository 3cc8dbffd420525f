"""The ways out of duplicates: suffix, merge, keep the newest, set null; each as changes of rows, the reasons against it first.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from mend.batches.repair import Repair
from mend.change import kept
from mend.change.kept import Facets, Keeper
from mend.constraints import duplicates
from mend.constraints.duplicates import Column, Ranking, Reference
from mend.constraints.proposals import Proposal
from mend.database import names
from mend.database.catalog import Change
from mend.repairs.violations import Uniqueness, uniqueness

OPTIONS = ("suffix", "merge", "keep_newest", "set_null")
SAYS = {
    "suffix": "Keep the oldest row of each group as it is, and add a suffix to the others, so that every row stays",
    "merge": "Keep the oldest row of each group, let what points at the others point at it, and delete the others",
    "keep_newest": "The same, but the newest row of each group stays",
    "set_null": "Keep the oldest row of each group as it is, and set the value of the others to null",
}
COSTS = {
    "suffix": "the value of all rows but one in each group changes, and who looks them up by it does not find them; old values are kept in schema mend",
    "merge": "what the deleted rows hold besides the key; they and every changed reference are kept in schema mend",
    "keep_newest": "what the deleted rows hold besides the key; they and every changed reference are kept in schema mend",
    "set_null": "the value of all rows but one in each group; it is kept in schema mend",
}


@dataclass(frozen=True)
class Scene:
    """What is known of the duplicates: who ranks where, and what points at them.

    ``others``: rows that are not the first of their group.  ``pointing``: rows of a child that point at others, by foreign key.
    ``definition``: the wanted key's own.  ``suffix``: the operator's pattern.
    """

    ranking: Ranking
    columns: Mapping[str, Column]
    definition: str
    references: tuple[Reference, ...] = ()
    others: int = 0
    pointing: Mapping[str, int] = field(default_factory=dict)
    suffix: str = ""

    @property
    def wanted(self) -> Uniqueness:
        """The key that is to be unique."""
        return self.ranking.wanted

    def mentioned(self) -> list[Column]:
        """The columns that the wanted key is made of, in its order."""
        found: list[str] = []
        for key in self.wanted.keys:
            plain = names.spaced(key)[0]
            found += [plain] if plain in self.columns else [name for name in self.columns if name in names.words(key)]
        return [self.columns[name] for name in dict.fromkeys(found)]

    def suffixed(self) -> Column | None:
        """The column that takes the suffix: the first text of the key that tells no rows apart and no foreign key refers to."""
        fixed = {*self.ranking.key, *(name for one in self.references for name in one.referenced)}
        return next((one for one in self.mentioned() if one.text and not one.computed and one.name not in fixed), None)

    def nulled(self) -> Column | None:
        """The column that is set to null: the first of the key that may be."""
        fixed = {*self.ranking.key, *(name for one in self.references for name in one.referenced)}
        return next(
            (one for one in self.mentioned() if one.nullable and not one.computed and one.name not in fixed), None
        )

    def why_not(self, option: str) -> str:
        """What speaks against an option whatever the rows hold, or ''."""
        if not self.ranking.key:
            return f"{self.wanted.table} has no primary key, and no unique one without nulls, so its rows cannot be told apart"
        if self.wanted.nulls_refused and option == "set_null":
            return "a primary key takes no nulls"
        if option == "set_null" and self.wanted.nulls_equal:
            return "NULLS NOT DISTINCT: nulls are duplicates of each other"
        if option == "set_null" and self.nulled() is None:
            return f"{', '.join(self.wanted.keys)} may not be null"
        if option == "suffix" and self.suffixed() is None:
            return f"no column of {', '.join(self.wanted.keys)} is a text that could take a suffix"
        if option in ("merge", "keep_newest"):
            return self._why_not_merged()
        return ""

    def _why_not_merged(self) -> str:
        for one in self.references:
            if one.computed:
                return f"{one.identity} stands on a column that is generated always, so its rows cannot be made to point elsewhere"
            if set(one.referenced) & {column.name for column in self.mentioned()}:
                return f"{one.identity} refers to the very column that has duplicates"
        return ""


@dataclass(frozen=True)
class Act:
    """One change of rows of an option: the repair, in words, and about how many rows.  ``again``: for rows that came meanwhile."""

    repair: Repair
    says: str
    rows: int
    again: bool = False


def acts(option: str, scene: Scene, *, live: Facets, keeper: Keeper) -> tuple[Act, ...]:
    """The changes of rows of one option that is possible (``scene.why_not``), in order.

    Raises: InvalidParameter for a suffix that is none.
    """
    if option in ("merge", "keep_newest"):
        return tuple(
            replace(act, repair=replace(act.repair, job=f"{keeper.key}_{n}"))
            for n, act in enumerate(_merged(turned(scene, option), live, keeper), start=1)
        )
    ranking, table = scene.ranking, scene.wanted.table
    column = scene.suffixed() if option == "suffix" else scene.nulled()
    assert column is not None
    if option == "suffix":
        work, value = duplicates.suffixed(ranking, column.name, scene.suffix), "w.v1"
        where, says = (
            f"t.{column.name} = w.v2",
            f"Add a suffix to {table}.{column.name} of all rows but the oldest of each group",
        )
    else:
        work, value = duplicates.others(ranking, {"v1": f"t.{column.name}"}), "null"
        where, says = (
            f"t.{column.name} = w.v1",
            f"Set {table}.{column.name} to null in all rows but the oldest of each group",
        )
    repair = Repair(f"{keeper.key}_1", table, "update", {column.name: value}, where, work, ranking.key)
    return (Act(repair, says, scene.others),)


def turned(scene: Scene, option: str) -> Scene:
    """The scene as an option sees it: which row of a group stays."""
    return replace(scene, ranking=replace(scene.ranking, newest=option == "keep_newest"))


def _merged(scene: Scene, live: Facets, keeper: Keeper) -> Iterator[Act]:
    """What points at the rows that go, then once more what came meanwhile; then the rows themselves."""
    ranking, table = scene.ranking, scene.wanted.table
    stays = "newest" if ranking.newest else "oldest"
    moved = [_moved(scene, one, row_key(one.child, live, keeper), stays) for one in scene.references]
    yield from (act for act in moved if act.rows)
    yield from (replace(act, says=f"{act.says}, where rows came meanwhile", rows=0, again=True) for act in moved)
    gone = Repair(
        "",
        table,
        "delete",
        {},
        duplicates.still_a_loser(ranking),
        duplicates.losers(ranking),
        ranking.key,
        alone=(table,),
        all_listed=True,
    )
    yield Act(gone, f"Delete all rows of {table} but the {stays} of each group", scene.others)


def _moved(scene: Scene, one: Reference, key: tuple[str, ...], stays: str) -> Act:
    """Let the rows of one foreign key point at the row that stays."""
    width = len(one.columns)
    repair = Repair(
        "",
        one.child,
        "update",
        {column: f"w.v{n}" for n, column in enumerate(one.columns, start=1)},
        " and ".join(
            [
                *(f"t.{column} = w.v{width + n}" for n, column in enumerate(one.columns, start=1)),
                duplicates.still_alike(scene.ranking, one),
            ]
        )
        if key
        else "true",
        duplicates.movers(scene.ranking, one, key),
        key or one.columns,
        alone=(scene.wanted.table,),
    )
    says = f"Let {one.child} ({', '.join(one.columns)}) point at the {stays} row of each group"
    return Act(repair, says, scene.pointing.get(one.identity, 0))


def proposal(act: Act, scene: Scene) -> Proposal | None:
    """The values that an act would write, to be looked at before; None where it writes none."""
    repair = act.repair
    if repair.action != "update" or act.again:
        return None
    about = repair.table == scene.wanted.table and not {one.name for one in scene.mentioned()}.isdisjoint(repair.values)
    wanted = [scene.definition] if about else []  # else the rows share the key still, until some of them are deleted
    return Proposal(repair.table, repair.values, repair.where, repair.work, repair.match, wanted=wanted)


def row_key(table: str, live: Facets, keeper: Keeper, *, but: str = "") -> tuple[str, ...]:
    """The columns that tell rows of a table apart: its primary key, else a unique one over columns that are never null.

    ``but``: the identity of the wanted key, which does not count.
    """
    if known := {**keeper.primary_keys, **kept.primary_keys(live)}.get(table):
        return tuple(known)
    for (kind, identity), definition in sorted(live.items()):
        held = uniqueness(Change(kind, identity, None, definition), live) if kind in ("constraint", "index") else None
        if (
            held is None
            or held.table != table
            or held.where
            or identity == but
            or definition.endswith(("INVALID", "ready", "dead"))
        ):
            continue
        if all(live.get(("not_null", f"{table}.{key}")) == "not null" for key in held.keys):
            return held.keys
    return ()

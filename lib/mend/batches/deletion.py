"""Deleting rows that others refer to: what goes first, what is released, and what is refused.  Pure.

What ON DELETE CASCADE, SET NULL and SET DEFAULT would do silently, steps of their own do first, deepest first, so that every row
has its before-image. The engine then leaves a row alone to which some row refers again (`repair.Repair.unreferenced`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from mend.batches.repair import Repair
from mend.change import kept
from mend.change.kept import Facets
from mend.change.references import Reference, references
from mend.errors import Refused

__all__ = ["Reference", "deletion", "references"]


def deletion(
    wanted: Repair, *, live: Facets, ceilings: Mapping[str, int] | None = None, strict: bool = True
) -> tuple[Repair, ...]:
    """The repairs that come before a delete, deepest first, and the delete itself; each has a job name of its own.

    Parameters
    ----------
    wanted : the rows; where the table refers to itself without a rule, its worklist must hold all rows that refer to one of it
    ceilings : the most rows of other tables that may be touched, by table
    strict : refuse where a foreign key without such a rule points at the table; else rows that are referred to stay, and are counted

    Raises: Refused where a foreign key forbids the delete, or tables take each other along in a circle.
    """
    whole = replace(wanted, action="delete", values={})
    found = tuple(_deleted(whole, live, (wanted.table,), strict, "" if wanted.work else wanted.where))
    return (
        tuple(
            replace(one, job=f"{wanted.job}{chr(97 + n)}", at_most=(ceilings or {}).get(one.table))
            for n, one in enumerate(found[:-1])
        )
        + found[-1:]
    )


def _deleted(wanted: Repair, live: Facets, path: tuple[str, ...], strict: bool, doomed: str) -> Iterator[Repair]:
    """The repairs of what refers to these rows, then the delete itself; ``path``: the tables on the way here.

    ``doomed``: what is true of a row ``t`` that is to go; '' where only the worklist tells.
    """
    pointing = references(wanted.table, live)
    selves = [one for one in pointing if one.table == wanted.table and one.on_delete == "CASCADE"]
    if selves and not wanted.work:
        tree = _tree(wanted.table, selves, wanted.where)
        wanted, doomed = replace(wanted, where="true", work=tree, match=selves[0].parent_columns), ""
    for one in pointing:
        if one.on_delete in ("NO ACTION", "RESTRICT"):
            if strict and (one.table != wanted.table or not wanted.work):
                raise Refused(
                    f"Rows of {wanted.table} cannot be deleted: {one.table} ({', '.join(one.columns)}) refers to them without ON DELETE. Nothing was changed. Decide about those rows first."
                )
        elif one.on_delete != "CASCADE":
            yield _released(one, wanted, live, doomed)
        elif one.table == wanted.table:
            continue
        elif one.table in path:
            raise Refused(
                f"Rows of {' and '.join(path)} take each other along when they are deleted. Nothing was changed. Delete them by hand."
            )
        else:
            further = one.among(replace(wanted, work="", match=(), where=doomed)) if doomed else ""
            yield from _deleted(_among(one, wanted, live, doomed), live, (*path, one.table), strict, further)
    yield wanted


def _among(one: Reference, parents: Repair, live: Facets, doomed: str) -> Repair:
    """The delete of the rows that refer to what is deleted.

    They are listed once, by a join: few rows of a large table may be meant, and a long worklist is no condition for each row. A listed
    row is still meant while it refers to the same parent, and that one is still to go.
    """
    key = kept.primary_keys(live).get(one.table, ())
    plain = replace(
        parents, table=one.table, values={}, where=one.among(parents), work="", match=(), key=(), columns={}
    )
    if not key:
        return plain
    listed = [f"t.{column} as k{n}" for n, column in enumerate(key, 1)]
    listed += [f"t.{column} as v{n}" for n, column in enumerate(one.columns, 1)]
    still = [f"t.{column} = w.v{n}" for n, column in enumerate(one.columns, 1)]
    if doomed:
        same = " and ".join(f"t.{column} = w.v{n}" for n, column in enumerate(one.parent_columns, 1))
        still.append(f"exists (select from {one.parent} as t where {same} and ({doomed}) offset 0)")  # row by row
    work = f"select {', '.join(listed)} from {one.table} as t where {pointing_at(one, parents)}"
    return replace(plain, where=" and ".join(still), work=work, match=key)


def pointing_at(one: Reference, parents: Repair) -> str:
    """What `Reference.among` says of a row ``t``, for all rows of the table at once: by a join, not row by row."""
    listed = f", ({parents.work}) as w" if parents.work else ""
    matched = "".join(f" and t.{column} = w.k{n}" for n, column in enumerate(parents.match, 1))
    keys = ", ".join(f"t.{column}" for column in one.parent_columns)
    own = ", ".join(f"t.{column}" for column in one.columns)
    return f"({own}) in (select {keys} from {one.parent} as t{listed} where ({parents.where}){matched})"


def _released(one: Reference, parents: Repair, live: Facets, doomed: str) -> Repair:
    """What ON DELETE SET NULL and SET DEFAULT do."""
    usual = one.on_delete == "SET DEFAULT"
    values = {c: live.get(("default", f"{one.table}.{c}"), "null") if usual else "null" for c in one.set_columns}
    if fixed := [c for c, text in values.items() if text == "null" and ("not_null", f"{one.table}.{c}") in live]:
        raise Refused(
            f"{one.table}.{fixed[0]} is set to null when rows of {one.parent} are deleted, but is NOT NULL. Nothing was changed. Decide about those rows first."
        )
    return replace(_among(one, parents, live, doomed), action="update", values=values)


def _tree(table: str, selves: Sequence[Reference], where: str) -> str:
    """Lists rows and all that hang on them in the same table, by the key that the first of its foreign keys refers to."""
    columns = list(
        dict.fromkeys([*selves[0].parent_columns, *(c for one in selves for c in (*one.columns, *one.parent_columns))])
    )
    at = {column: f"k{n}" for n, column in enumerate(columns, 1)}
    hangs = " or ".join(
        "(" + " and ".join(f"t.{own} = d.{at[c]}" for own, c in zip(one.columns, one.parent_columns, strict=True)) + ")"
        for one in selves
    )
    listed, names = ", ".join(f"t.{column}" for column in columns), ", ".join(at.values())
    found = f"select {listed} from {table} as t where {where} union select {listed} from {table} as t join d on {hangs}"
    return f"with recursive d ({names}) as ({found}) select {', '.join(at[c] for c in selves[0].parent_columns)} from d"

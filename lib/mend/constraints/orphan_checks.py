"""The answers about a foreign key and its orphans, as checks; and what would have stopped them.  Pure: from `orphans.Facts`."""

from __future__ import annotations

from functools import partial

import pandas as pd

from mend.constraints import orphans
from mend.constraints.orphaned import Facts
from mend.database import names
from mend.diagnosis import Check, Prevention
from mend.repairs import foreign_keys
from mend.repairs.foreign_keys import NOT_VALID


def checks(facts: Facts) -> tuple[Check, ...]:
    """wanted, orphans, parent_key, bypasses, references, index, tables."""
    return tuple(ask(facts) for ask in (_wanted, _orphans, _parent_key, _bypasses, _references, _index, _tables))


def nothing_wanted() -> Check:
    """The one answer where no key is in question."""
    says = "No pending revision makes a foreign key, and none was named."
    return Check("diagnosis", "Which foreign key is wanted?", "healthy", says, "There is none.")


def nothing_there(made: str, *, fills: bool) -> Check:
    """The one answer where the revision itself makes what the key is about, so that no row is there yet.

    ``fills``: it also changes rows, and what it puts in may well be in the way.
    """
    asks = partial(
        Check,
        name="diagnosis",
        question="Which rows are in the way of the key?",
        says=f"The revision that wants the key makes {made} itself, so no row of it is there yet.",
        healthy_when="There is none.",
    )
    if fills:
        why = "the revision also changes rows; if it stops at the key, its own statements put the orphans in. Mend them there"
        return asks(verdict="could_not_check", why=why)
    return asks(verdict="healthy")


def _wanted(facts: Facts) -> Check:
    key, standing = facts.key, facts.standing
    made = facts.subject.facts.revision if facts.subject.statement and facts.subject.facts else None
    state = (
        "stands and is valid"
        if facts.valid
        else "stands NOT VALID: new rows are checked, old ones are not"
        if standing == f"{key.definition}{NOT_VALID}"
        else "stands as another key"
        if standing
        else "is not there"
    )
    frame = pd.DataFrame(
        [
            {
                "key": key.identity,
                "definition": key.definition,
                "stands as": standing or "",
                "wanted by": made.id if made else "",
            },
            *(
                {
                    "key": one.identity,
                    "definition": one.definition,
                    "stands as": facts.live["constraint", one.identity],
                    "wanted by": "",
                }
                for one in foreign_keys.alike(key, facts.live)
            ),
        ]
    )
    return Check(
        "wanted",
        "Which foreign key is wanted, and what stands already?",
        "healthy" if facts.valid else "found",
        f"{names.last(key.identity)} {state}. {key.says()}, ON DELETE {key.on_delete}{', MATCH FULL' if key.full else ''}.",
        "The key stands, and it is valid.",
        frame,
    )


def _orphans(facts: Facts) -> Check:
    key, count = facts.key, facts.count
    asks = partial(
        Check,
        name="orphans",
        question="Which rows have no parent?",
        healthy_when=f"There are 0 rows of {key.table} whose parent is missing in {key.parent}.",
        frame=facts.sample,
        sql=f"select * from {key.table} as t where {foreign_keys.orphan(key, facts.live)}",
    )
    if count.rows is None:
        return asks(verdict="could_not_check", says=f"{count.says} rows.", why=count.why)
    if not count.rows:
        return asks(verdict="healthy", says="Every row has its parent.")
    part = f" {facts.in_part:,} of them are NULL in part, which MATCH FULL refuses." if facts.in_part else ""
    below = (
        f" Further rows below them, by depth: {', '.join(f'{n:,}' for n in facts.levels[1:])}."
        if facts.levels[1:]
        else ""
    )
    return asks(
        verdict="found",
        says=f"{count.says} rows refer to {facts.missing.says} keys that {key.parent} does not have.{part}{below}",
    )


def _parent_key(facts: Facts) -> Check:
    key, frame = facts.key, facts.parent_keys
    usable = frame[frame["usable"].astype(bool)]
    says = (
        f"{usable['index_name'].iloc[0]} makes it unique."
        if len(usable)
        else f"No index makes {key.parent} ({', '.join(key.keys)}) unique."
    )
    return Check(
        "parent_key",
        "Is the parent's key unique?",
        "healthy" if len(usable) else "found",
        says,
        "1 index at least is unique, valid, whole and not deferrable, on exactly these columns.",
        frame,
        frame.attrs["sql"],
    )


def _bypasses(facts: Facts) -> Check:
    frame = facts.bypasses
    says = (
        f"{len(frame)} ways past the checks are open."
        if len(frame)
        else "None is open now. Rows may have come in while no key stood."
    )
    return Check(
        "bypasses",
        "What lets orphans in?",
        "found" if len(frame) else "healthy",
        says,
        "There are 0 disabled triggers, replica settings and subscriptions on the two tables.",
        frame,
        frame.attrs["sql"],
    )


def _references(facts: Facts) -> Check:
    found = [
        {
            "table": one.key.table,
            "constraint": one.key.identity,
            "on_delete": one.key.on_delete,
            "rows": one.rows.rows,
            "estimate": one.rows.estimate,
            "indexed": one.indexed,
        }
        for one in facts.referring
    ]
    frame = pd.DataFrame(found, columns=["table", "constraint", "on_delete", "rows", "estimate", "indexed"])
    some = [one for one in facts.referring if one.rows.rows != 0]
    says = (
        "; ".join(f"{one.rows.says} rows of {one.key.table} (ON DELETE {one.key.on_delete})" for one in some)
        or "Nothing refers to them"
    )
    return Check(
        "references",
        "What refers to the orphans themselves?",
        "found" if some else "healthy",
        f"{says}.",
        "There are 0 such rows. It matters for the option delete only.",
        frame,
    )


def _index(facts: Facts) -> Check:
    frame, key = facts.indexes, facts.key
    served = frame[frame["serves"].astype(bool)]
    says = (
        f"{served['index_name'].iloc[0]} does."
        if len(served)
        else f"None does: each delete of a parent reads all of {key.table}. Pass index=true to have one built, better give it a revision of its own."
    )
    return Check(
        "index",
        "Does an index find the rows of a parent?",
        "healthy" if len(served) or facts.valid else "found",
        says,
        "1 valid index at least begins with the key's columns.",
        frame,
        frame.attrs["sql"],
    )


def _tables(facts: Facts) -> Check:
    frame = facts.sizes
    lacks = [f"{row['lacks']} of {row['relation']}" for row in frame.to_dict("records") if row["lacks"]]
    sizes = "; ".join(
        f"{row['relation']}: about {row['rows_estimate'] or 0:,} rows, {row['size_bytes'] / 1e6:,.1f} MB"
        for row in frame.to_dict("records")
    )
    return Check(
        "tables",
        "How large are the tables, and may this role change them?",
        "found" if lacks else "healthy",
        f"{sizes}." + (f" This role lacks {'; '.join(lacks)}." if lacks else ""),
        "The role owns the referring table, and has REFERENCES on the other.",
        frame,
        frame.attrs["sql"],
    )


def preventions(facts: Facts) -> tuple[Prevention, ...]:
    key, name = facts.key, names.last(facts.key.identity)
    found = [
        Prevention(
            f"Make a key in two revisions. First: op.create_foreign_key(..., postgresql_not_valid=True): no row is read, no new orphan comes in. "
            f"Then, after the repair: op.execute('ALTER TABLE {key.table} VALIDATE CONSTRAINT {name}') in a revision of its own."
        ),
        Prevention(
            f"Whatever deletes from {key.parent} leaves orphans in {key.table} while no key stands. Say what shall become of the rows with ON DELETE, and never drop a key to get a delete through."
        ),
    ]
    if not facts.indexed:
        found.append(
            Prevention(
                f"Give {key.table} ({', '.join(key.columns)}) an index, in a revision of its own with autocommit_block(): "
                f"op.create_index('{orphans.index_name(facts)}', ..., postgresql_concurrently=True)."
            )
        )
    return tuple(found)

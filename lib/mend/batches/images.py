"""The SQL that gives rows back from their before-images, batch by batch, the last change first.  Pure texts.

A row goes back only where it still is as the repair left it; where it is as it was before already, nothing is to do. Any other was changed
since by somebody else: a conflict, which is noted beside its image and left alone.  A row that is locked is passed over until later.
"""

from __future__ import annotations

from mend.batches.batch import Job, keyed, unchanged
from mend.change import kept
from mend.change.act import literal

BACK, SAME, CONFLICT = "restored", "as it was", "conflict"


def opening(job: Job) -> tuple[str, ...]:
    """DDL that the way back needs beside the images; harmless where it is there already."""
    image = job.table("image")
    return (
        f"alter table {image} add column if not exists reason text",
        f"create unique index if not exists image_{job.repair.job}_n on {image} (n)",
        f"analyze {image}",
        *([_leaned_on(job)] if job.repair.since else []),
    )


def _leaned_on(job: Job) -> str:
    """Notes, once and for all rows together, those that were inserted and that others have come to need since."""
    there = f"exists (select from {job.whole} as t where {' and '.join(keyed(job, 'i'))} and {job.repair.since})"
    return (
        f"with mend_listed as (select u.v1 from {job.table('work')} as w cross join unnest(w.v1) as u (v1))\n"
        f"update {job.table('image')} as i set state = '{CONFLICT}', reason = 'rows that came since refer to it' where i.state = '' and {there}"
    )


def back(job: Job, *, above: str, upto: str) -> str:
    """The statement of one batch: the images with ``above`` < n <= ``upto``.  Answers: rows found, given back, conflicts."""
    return {"update": _updated, "delete": _deleted, "insert": _inserted}[job.repair.action](job, above, upto)


def _piece(job: Job, above: str, upto: str) -> str:
    """The images of a batch; of a row that was changed twice the last one, and the one before in a later batch."""
    keys = ", ".join(f"i.{name}" for name in job.names("k"))
    return (
        f"with mend_piece as materialized (\n  select distinct on ({keys}) i.* from {job.table('image')} as i\n"
        f"   where {_within(above, upto)} and i.state = ''\n   order by {keys}, i.n desc\n)"
    )


def _updated(job: Job, above: str, upto: str) -> str:
    types = job.repair.columns
    sets = ", ".join(f"{column} = {kept.as_restored(f'w.{name}', types[column])}" for name, column in job.images("o"))
    ours, same = (" and ".join(unchanged(job, "p", letter)) for letter in "no")
    act = f"update {job.whole} as t set {sets}\n    from mend_hit as w\n   where {_found(job)} and w.mend_ours and not w.mend_same\n  returning w.n"
    state = f"case when {_DONE} then '{BACK}' when h.mend_same then '{SAME}' when {_moved(job)} then '' else '{CONFLICT}' end"
    reason = "case when h.mend_ours then 'a trigger or a rule kept it' else 'changed since' end"
    hit = f"({ours}) as mend_ours, ({same}) as mend_same"
    return _batch(job, above, upto, hit=hit, act=act, state=state, reason=reason)


def _inserted(job: Job, above: str, upto: str) -> str:
    ours = " and ".join(unchanged(job, "p", "n"))
    free = " and ".join(job.repair.unreferenced) or "true"
    act = f"delete from {job.whole} as t\n   using mend_hit as w\n   where {_found(job)} and w.mend_ours and w.mend_free\n  returning w.n"
    state = f"case when {_DONE} then '{BACK}' when {_moved(job)} then '' else '{CONFLICT}' end"
    reason = "case when not h.mend_ours then 'changed since' when not h.mend_free then 'rows refer to it' else 'a trigger or a rule kept it' end"
    hit = f"({ours}) as mend_ours, ({free}) as mend_free"
    return _batch(job, above, upto, hit=hit, act=act, state=state, reason=reason)


_DONE = "h.n in (select d.n from mend_done as d)"


def _moved(job: Job) -> str:
    """Whether somebody wrote the row between the statement's look and its lock: it is still ours, and the statement cannot see it any more."""
    there = "s.ctid = h.mend_place and s.tableoid = h.mend_leaf offset 0"  # by its place: no plan reads the whole table
    return f"h.mend_ours and not exists (select from {job.whole} as s where {there})"


def _batch(job: Job, above: str, upto: str, *, hit: str, act: str, state: str, reason: str) -> str:
    strength = "update" if job.repair.locks_key else "no key update"
    return (
        f"{_piece(job, above, upto)}, mend_hit as materialized (\n"
        f"  select p.*, h.* from mend_piece as p cross join lateral (\n"  # row by row along the key: no plan reads the whole table
        f"    select t.ctid as mend_place, t.tableoid as mend_leaf, {hit}\n      from {job.whole} as t\n"
        f"     where {' and '.join(keyed(job, 'p'))}\n       for {strength} of t skip locked) as h\n"
        f"), mend_done as (\n  {act}\n), mend_noted as (\n"
        f"  update {job.table('image')} as i set state = {state}, reason = case when {state} = '{CONFLICT}' then {reason} end\n"
        f"    from mend_hit as h where i.n = h.n and {_within(above, upto)} returning i.state\n)\n{_counts('mend_hit')}"
    )


def _within(above: str, upto: str) -> str:
    return f"i.n > {above} and i.n <= {upto}"


def _found(job: Job) -> str:
    return " and ".join(["t.ctid = w.mend_place", "t.tableoid = w.mend_leaf", *keyed(job, "w")])


def _deleted(job: Job, above: str, upto: str) -> str:
    types = job.repair.columns
    columns = ", ".join(column for _, column in job.images("o"))
    values = ", ".join(kept.as_restored(f"p.{name}", types[column]) for name, column in job.images("o"))
    there = f"exists (select from {job.whole} as t where {' and '.join(keyed(job, 'p'))})"
    # A trigger or a rule of the table may keep a row out, or alter it: only what is in it now, letter for letter, is back.
    returned = ", ".join(job.kept_as("k", "o"))
    inserted, exact = (f"exists (select from mend_done as d where {_equal(job, *letters)})" for letters in ("k", "ko"))
    return (
        f"{_piece(job, above, upto)}, mend_hit as materialized (\n  select p.*, {there} as mend_there from mend_piece as p\n"
        f"), mend_done as (\n  insert into {job.repair.table} as t ({columns}) overriding system value\n"
        f"  select {values} from mend_hit as p where not p.mend_there\n  returning {returned}\n"
        f"), mend_noted as (\n  update {job.table('image')} as i set state = case when not h.mend_there and {exact} then '{BACK}' else '{CONFLICT}' end,\n"
        f"         reason = case when h.mend_there then 'a row with its key is there' when not {inserted} then 'a trigger or a rule kept it out' when not {exact} then 'a trigger or a rule altered it' end\n"
        f"    from mend_hit as h where i.n = h.n and {_within(above, upto)} returning i.state\n)\n{_counts('mend_hit')}"
    )


def _equal(job: Job, *letters: str) -> str:
    """The row that went in is the one of the image, letter for letter."""
    return " and ".join(
        f'cast(d.{name} as text) collate "C" is not distinct from cast(h.{name} as text) collate "C"'
        for name in job.names(*letters)
    )


def _counts(hit: str) -> str:
    counted = f"(select count(*) filter (where state = '{BACK}'), count(*) filter (where state = '{CONFLICT}') from mend_noted)"
    return f"select (select count(*) from {hit}), c.* from {counted} as c (back, conflicts)"


def gone(job: Job) -> str:
    """Notes the rows that are not there any more, of an update or an insert; what is left then is locked."""
    there = f"exists (select from {job.whole} as t where {' and '.join(keyed(job, 'i'))})"
    return f"update {job.table('image')} as i set state = '{CONFLICT}', reason = 'the row is gone' where i.state = '' and not {there}"


def conflict(job: Job, *, above: str, upto: str, reason: str) -> str:
    """Notes one row that does not go back, with why."""
    return f"update {job.table('image')} set state = '{CONFLICT}', reason = {literal(reason)} where n > {above} and n <= {upto} and state = ''"


def last(job: Job) -> str:
    """The highest image that is not given back; null where there is none."""
    return f"select max(n) from {job.table('image')} where state = ''"


def below(job: Job, *, upto: int, rows: int) -> str:
    """Where a batch of so many images, counted down from ``upto``, begins."""
    return f"select coalesce(min(n), 1) - 1 from (select n from {job.table('image')} where n <= {upto} and state = '' order by n desc limit {rows}) as b"


def told(job: Job, *, sample: int) -> str:
    """How many rows went back, how many are conflicts, and the keys of some of those."""
    keys = ", ".join(f"to_jsonb({name}) #>> '{{}}'" for name in job.names("k"))
    some = f"select array[{keys}] as key, reason from {job.table('image')} where state = '{CONFLICT}' order by n limit {sample}"
    return (
        f"select count(*) filter (where state = '{BACK}'), count(*) filter (where state = '{CONFLICT}'), "
        f"(select jsonb_agg(jsonb_build_object('key', s.key, 'reason', s.reason)) from ({some}) as s) from {job.table('image')}"
    )

"""The SQL of a repair: its tables in schema mend, one batch, a row set aside, what is left.  Pure texts.

A batch is one statement: it finds rows in a window, locks them without waiting, changes them, and keeps their before-images; or
it changes them at once where the server can tell what was there before, which is quicker where nobody else holds a row. The window is a part of the table's pages, of its key, or of the worklist; each gives its own conditions here, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql as pgsql

from mend.batches import repair
from mend.batches.repair import Repair
from mend.change import kept, manifest
from mend.change.act import literal
from mend.plan import Step

LEFT_COUNTED = 10_000  # rows that are left are counted up to here
Position = tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """A repair, and where its tables are."""

    repair: Repair
    schema: str
    by: str = ""  # instead of the repair's own way to walk
    returns_old: bool = False  # whether the server's RETURNING gives old values (PostgreSQL 18)

    def table(self, what: str) -> str:
        """``image``, ``range``, ``quarantine`` or ``work``, qualified and quoted."""
        return pgsql.Identifier(self.schema, f"{what}_{self.repair.job}").as_string(None)

    @property
    def walks(self) -> str:
        """Along what: ``ctid``, ``keyset`` or ``work``."""
        return "work" if self.repair.work else self.by or self.repair.by

    @property
    def at_once(self) -> bool:
        """Whether a batch may change rows in one go, without locking them first."""
        repair = self.repair
        return self.returns_old and repair.action == "update" and not repair.work and not repair.alone

    @property
    def whole(self) -> str:
        """The table as FROM takes it: with its partitions, without what inherits from it."""
        return self.repair.table if self.repair.partitioned else f"only {self.repair.table}"

    @property
    def written(self) -> tuple[str, ...]:
        """The columns whose values are kept: those an update sets; all of a row that is deleted or inserted."""
        return tuple(self.repair.values if self.repair.action == "update" else self.repair.columns)

    def images(self, *letters: str) -> list[tuple[str, str]]:
        """(name, column) of the before-images' columns: ``k1`` .. of the key, ``o1`` .. old and ``n1`` .. new values."""
        without = {"update": "", "delete": "n", "insert": "o"}[self.repair.action]
        columns = {"k": self.repair.key, "o": self.written, "n": self.written} | dict.fromkeys(without, ())
        return [(f"{letter}{n}", column) for letter in letters for n, column in enumerate(columns[letter], 1)]

    def names(self, *letters: str) -> list[str]:
        """The names alone."""
        return [name for name, _ in self.images(*letters)]

    def kept(self, column: str) -> str:
        """A column of ``t`` as a before-image holds it."""
        return kept.as_kept(f"t.{column}", self.repair.columns[column])

    def kept_as(self, *letters: str, prefix: str = "") -> list[str]:
        """Those columns of ``t`` under their names."""
        return [f"{self.kept(column)} as {prefix}{name}" for name, column in self.images(*letters)]


def job_of(step: Step) -> Job:
    """The repair that a step runs, or gives back."""
    return Job(repair.from_arguments(step.arguments), str(step.arguments["schema"]))


@dataclass(frozen=True)
class Window:
    """A part of one relation; ``relation`` is as FROM takes it, None stands for its beginning or end.

    Positions are texts: ``("(12,3)",)`` of a physical walk, ``("17",)`` of a worklist, the values of the key of a keyset.  The first two
    go from ``at`` to before ``upto``; a keyset goes from after ``at`` to ``upto`` itself.  ``places``: of these tuples only.
    """

    relation: str
    at: Position | None
    upto: Position | None
    places: tuple[str, ...] | None = None


# -- its tables ---------------------------------------------------------------------------------------------------------


def opening(job: Job) -> tuple[str, ...]:
    """DDL for the job's tables, the worklist filled; to be run in one transaction."""
    none = f"from only {job.repair.table} as t with no data"
    images = ", ".join(["cast(null as int8) as w", *job.kept_as("k", "o", "n")])
    aside = ", ".join(
        [*job.kept_as("k"), "cast(null as oid) as leaf", "cast(null as tid) as place", "cast(null as int8) as w"]
    )
    work = ["work"] if job.repair.work else []
    return (
        *_worklist(job),
        f"create table {job.table('image')} as select {images} {none}",
        f"alter table {job.table('image')} add column n int8 generated always as identity, add column state text not null default ''",
        f"create table {job.table('quarantine')} as select {aside}, cast('' as text) as sqlstate, cast('' as text) as reason, now() as found_at {none}",
        f"create table {job.table('range')} (n int4 primary key, pass int4 not null, relation text not null, lo text[], hi text[], "
        "at text[], state text not null default 'open', rows int8 not null default 0, batches int8 not null default 0)",
        *(f"comment on table {job.table(what)} is {literal(_said(job, what))}" for what in [*_SAID, *work]),
        *(manifest.closed(job.table(what)) for what in [*_SAID, *work]),
    )


def noted(job: Job) -> tuple[str, ...]:
    """The lines of the manifest for the job's tables: what they belong to, and until when they stay."""
    whats = [*_SAID, *(["work"] if job.repair.work else [])]
    return tuple(
        manifest.listed(
            job.schema,
            f"{what}_{job.repair.job}",
            source=job.repair.table,
            table=job.repair.table,
            days=kept.EXPIRY_DAYS,
        ).sql
        for what in whats
    )


_SAID = {"image": "before-images", "quarantine": "rows set aside", "range": "checkpoints"}
_WORDS = {"k": "", "o": " before", "n": " after"}


def _said(job: Job, what: str) -> str:
    letters = {"image": "kon", "quarantine": "k"}.get(what, "")
    columns = ", ".join(f"{name} {column}{_WORDS[name[0]]}" for name, column in job.images(*letters))
    named = f" ({columns})" if columns else ""
    return f"mend: {_SAID.get(what, 'worklist')} of {job.repair.table}{named}; expires {kept.EXPIRY_DAYS} days after the run"


def _worklist(job: Job) -> tuple[str, ...]:
    """What is to be done, listed once: its order and content stay, whatever happens to the rows it was made from."""
    if not job.repair.work:
        return ()
    work = job.table("work")
    return (
        f"create table {work} as select row_number() over () as n, q.* from ({job.repair.work}) as q",
        f"alter table {work} add primary key (n)",
        f"analyze {work}",
    )


# -- a batch ------------------------------------------------------------------------------------------------------------


def change(job: Job, window: Window, *, rows: int, sweep: bool = False, places: bool = False) -> str:
    """The statement of one batch; ``rows`` limits a physical walk.  Answers: rows found, rows changed, the last one's position.

    ``sweep``: what is done already or was set aside is not found again.  ``places``: answers also where the changed rows are now.
    """
    names = ", ".join(["w", *job.names("k", "o", "n")])
    now = ", (select array_agg(cast(mend_now as text)) from mend_done) as now"
    last = "cast(max(mend_place) as text)" if job.walks == "ctid" else "cast(null as text)"
    return (
        f"with mend_hit as materialized (\n{_hit(job, window, rows=rows, sweep=sweep, lock=True)}\n), mend_done as (\n{_act(job, window)}{', t.ctid as mend_now' * places}\n"
        f"), mend_kept as (\n  insert into {job.table('image')} ({names}) select {names} from mend_done\n)\n"
        f"select count(*) as found, (select count(*) from mend_done) as changed, {last} as last{now * places} from mend_hit"
    )


def change_at_once(job: Job, window: Window, *, places: bool = False) -> str:
    """The same change of a whole window without locking its rows first; it may have to wait for a row, so it needs a short lock_timeout.

    A row that somebody changes meanwhile is looked at again as it is then, by PostgreSQL, and old values are what was replaced.
    """
    sets = ", ".join(f"{column} = ({text})" for column, text in job.repair.values.items())
    names = ", ".join(["w", *job.names("k", "o", "n")])
    versions = {"k": "mend_old", "o": "mend_old", "n": "mend_new"}
    types = job.repair.columns
    images = [
        f"{kept.as_kept(f'{versions[name[0]]}.{column}', types[column])} as {name}"
        for name, column in job.images("k", "o", "n")
    ]
    returned = ", ".join(["cast(null as int8) as w", *images, *["t.ctid as mend_now"] * places])
    now = ", (select array_agg(cast(mend_now as text)) from mend_done) as now"
    return (
        f"with mend_done as (\n  update {window.relation} as t set {sets}\n"
        f"   where {_all([text for text in (_within(job, window), f'({job.repair.where})') if text])}\n"
        f"  returning with (old as mend_old, new as mend_new) {returned}\n"
        f"), mend_kept as (\n  insert into {job.table('image')} ({names}) select {names} from mend_done\n)\n"
        f"select count(*) as found, count(*) as changed, cast(null as text) as last{now * places} from mend_done"
    )


def _act(job: Job, window: Window) -> str:
    """What happens to the rows that were found; it returns what becomes their image."""
    repair = job.repair
    if repair.action == "insert":
        columns, values = ", ".join(repair.values), ", ".join(f"({text})" for text in repair.values.values())
        returned = ", ".join(["cast(null as int8) as w", *job.kept_as("k", "n")])
        head = f"  insert into {repair.table} as t ({columns}) overriding system value"
        return f"{head}\n  select {values} from mend_hit as w\n  returning {returned}"
    line = "w.n as w" if repair.work else "cast(null as int8) as w"
    known = [f"mend_{name} as {name}" for name in job.names("k", "o")]
    returned = ", ".join([line, *known, *job.kept_as("n")])
    sets = ", ".join(f"{column} = ({text})" for column, text in repair.values.items())
    verb = {
        "update": f"update {window.relation} as t set {sets}\n    from",
        "delete": f"delete from {window.relation} as t\n   using",
    }
    return f"  {verb[repair.action]} mend_hit as w\n   where {_same(job, window)}\n  returning {returned}"


def _hit(job: Job, window: Window, *, rows: int, sweep: bool, lock: bool) -> str:
    """The rows of a window that need the change.  Who holds a row now is not waited for: the closing sweep finds it."""
    repair = job.repair
    again = _not_again(job) if sweep else []
    free = repair.unreferenced if repair.action == "delete" else ()
    own = [*_places(window), f"({repair.where})", *free]
    conditions = [text for text in (_within(job, window), *own, *again) if text]
    if repair.action == "insert":
        return f"  select w.* from {job.table('work')} as w\n   where {_all([*conditions, *_absent(job)])}\n   order by w.n"
    known = ", ".join(["t.ctid as mend_place", "t.tableoid as mend_leaf", *job.kept_as("k", "o", prefix="mend_")])
    source = f"{window.relation} as t"
    strength = "update" if repair.locks_key else "no key update"
    locked = f"\n     for {strength} of t skip locked" if lock else ""
    if not repair.work:
        order = f"t.ctid limit {int(rows)}" if job.walks == "ctid" else ", ".join(f"t.{c}" for c in repair.key)
        return f"  select {known}\n    from {source}\n   where {_all(conditions)}\n   order by {order}{locked}"
    work = f"{job.table('work')} as w"
    if repair.match_unique:  # line by line along the unique key: no plan reads the whole table
        lines = _all([_within(job, window), *again])
        return f"  select w.*, h.* from {work} cross join lateral (\n    select {known} from {source}\n     where {_all([*_matched(job), *own])}{locked}) as h\n   where {lines}"
    return f"  select w.*, {known}\n    from {work}\n    join {source} on {_all(_matched(job))}\n   where {_all(conditions)}{locked}"


def _places(window: Window) -> list[str]:
    """Only rows that the first look locked, where there was one."""
    return [] if window.places is None else [_at(window.places)]


def _at(places: Sequence[str]) -> str:
    listed = ",".join(f'"{place}"' for place in places)
    return f"t.ctid = any(cast('{{{listed}}}' as tid[]))"


def unmended(job: Job, window: Window, places: Sequence[str]) -> str:
    """A row where some of those that were just changed need the change still."""
    return f"select 1 from {window.relation} as t where {_at(places)} and ({job.repair.where}) limit 1"


def lock(job: Job, window: Window, *, rows: int, sweep: bool) -> str:
    """Locks the rows that a delete will find, and gives their places.

    A row whose referring rows are to be looked for is locked first: nobody can then refer to it any more, and the statement that
    follows sees those that came until then.
    """
    return f"select cast(h.mend_place as text) from (\n{_hit(job, window, rows=rows, sweep=sweep, lock=True)}\n) as h"


def _within(job: Job, window: Window) -> str:
    """The window as a condition."""
    walks, (at, upto) = job.walks, (window.at, window.upto)
    if walks == "keyset":
        key = [f"t.{c}" for c in job.repair.key]
        bounds = [f"{_row(key)} {sign} {_row(_typed(job, end))}" for sign, end in ((">", at), ("<=", upto)) if end]
    else:
        subject, kind = ("t.ctid", "tid") if walks == "ctid" else ("w.n", "int8")
        bounds = [
            f"{subject} {sign} cast({literal(end[0])} as {kind})" for sign, end in ((">=", at), ("<", upto)) if end
        ]
    return _all(bounds)


def _typed(job: Job, position: Position) -> list[str]:
    types = (kept.type_of(job.repair.columns[c]) for c in job.repair.key)
    return [f"cast({literal(value)} as {kind})" for value, kind in zip(position, types, strict=True)]


def _same(job: Job, window: Window) -> str:
    """A found row and the row to change are one.  The second condition keeps every plan from reading more of the table than the window."""
    near = f"\n     and {_within(job, window)}" if _within(job, window) else ""
    if job.repair.work:
        near = "\n     and t.ctid = any(array(select mend_place from mend_hit)) and t.tableoid = w.mend_leaf"
    return f"t.ctid = w.mend_place{near}"


def _matched(job: Job) -> list[str]:
    return [f"t.{column} = w.k{n}" for n, column in enumerate(job.repair.match, 1)]


def _absent(job: Job) -> list[str]:
    """What an insert must not find there already."""
    if not job.repair.match:
        return []
    return [f"not exists (select from {job.whole} as t where {_all(_matched(job))})"]


def _not_again(job: Job) -> list[str]:
    """Not what was set aside; not a line of the worklist that is done, for its ``where`` may well hold still."""
    aside = "q.w = w.n" if job.repair.work else "q.leaf = t.tableoid and q.place = t.ctid"
    found = [f"not exists (select from {job.table('quarantine')} as q where {aside})"]
    if job.repair.work and job.repair.action != "insert":
        found.append(f"not exists (select from {job.table('image')} as i where i.w = w.n)")
    return found


def _row(values: list[str]) -> str:
    return values[0] if len(values) == 1 else f"({', '.join(values)})"


def _all(conditions: list[str]) -> str:
    return "\n     and ".join(conditions)


# -- around a batch -----------------------------------------------------------------------------------------------------


def bound(job: Job, window: Window, *, keys: int) -> str:
    """Where a keyset window of so many keys ends; no row where the range ends before."""
    texts = ", ".join(f"to_jsonb(t.{c}) #>> '{{}}'" for c in job.repair.key)
    order = ", ".join(f"t.{c}" for c in job.repair.key)
    within = _within(job, window) or "true"
    return f"select array[{texts}] from {window.relation} as t where {within} order by {order} offset {int(keys) - 1} limit 1"


def first(job: Job, window: Window, *, sweep: bool) -> str:
    """The position of the first row of a physical window that needs the change."""
    return f"select cast(mend_place as text) from ({_hit(job, window, rows=1, sweep=sweep, lock=False)}) as h"


def aside(job: Job, window: Window, *, sqlstate: str, reason: str) -> str:
    """Set the row (or the worklist's line) of this window aside, with why it cannot be changed."""
    said = f"{literal(sqlstate)}, {literal(reason)}, clock_timestamp()"
    hit = f"({_hit(job, window, rows=1, sweep=False, lock=False)}) as h"
    line = "h.n" if job.repair.work else "null"
    if job.repair.action == "insert":
        return f"insert into {job.table('quarantine')} (w, sqlstate, reason, found_at) select h.n, {said} from {hit}"
    names = ", ".join([*job.names("k"), "leaf", "place", "w", "sqlstate", "reason", "found_at"])
    keys = ", ".join([*(f"h.mend_{k}" for k in job.names("k")), "h.mend_leaf", "h.mend_place", line])
    return f"insert into {job.table('quarantine')} ({names}) select {keys}, {said} from {hit}"


def left(job: Job) -> str:
    """How many rows still need the change, those set aside left out; counted up to LEFT_COUNTED + 1."""
    return (
        f"select count(*) from (select from {_everything(job)} {_all(_not_again(job))} limit {LEFT_COUNTED + 1}) as l"
    )


def left_pages(job: Job) -> str:
    """On which pages those rows are: relation as FROM takes it, page; in order."""
    page = "cast(split_part(ltrim(cast(t.ctid as text), '('), ',', 1) as int8)"
    places = f"select distinct t.tableoid as leaf, {page} as page from {_everything(job)} {_all(_not_again(job))}"
    return (
        f"select format('only %I.%I', n.nspname, c.relname), l.page from ({places}) as l "
        "join pg_class as c on c.oid = l.leaf join pg_namespace as n on n.oid = c.relnamespace order by 1, 2"
    )


def spared(job: Job) -> str:
    """How many rows of the worklist are there still."""
    return f"select count(*) from {job.table('work')} as w where exists (select from {job.whole} as t where {_all(_matched(job))})"


def left_aside(job: Job) -> str:
    """Of the rows that were set aside those that still need the change: SQLSTATE, reason, how many."""
    aside = "q.w = w.n" if job.repair.work else "q.leaf = t.tableoid and q.place = t.ctid"
    there = f"exists (select from {_everything(job)} {aside})"
    return f"select q.sqlstate, q.reason, count(*) from {job.table('quarantine')} as q where {there} group by 1, 2 order by 3 desc"


def still(job: Job) -> str:
    """A row where some that were changed, and hold what they were given, need the change still.  A worklist says itself what is done."""
    repair = job.repair
    if repair.action != "update" or repair.work or not repair.key:
        return "select 1 where false"
    same = _all([*keyed(job, "i"), *unchanged(job, "i", "n")])
    return f"select 1 from {job.table('image')} as i join {job.whole} as t on {same} where ({repair.where}) limit 1"


def keyed(job: Job, image: str) -> list[str]:
    """A row of ``t`` is the one of an image; in the column's own type, so that the key's index serves."""
    types = job.repair.columns
    return [f"t.{column} = {kept.as_restored(f'{image}.{name}', types[column])}" for name, column in job.images("k")]


def unchanged(job: Job, image: str, letter: str) -> list[str]:
    """The row holds what the image does, letter for letter: equal by its type's rules (1.0 and 1.00, citext) would not be enough."""
    return [
        f'cast(t.{column} as text) collate "C" is not distinct from cast({image}.{name} as text) collate "C"'
        for name, column in job.images(letter)
    ]


def _everything(job: Job) -> str:
    """FROM and WHERE over the whole table or worklist, ending with AND."""
    where = f"where ({job.repair.where}) and"
    if job.repair.action == "insert":
        return f"{job.table('work')} as w {where} {''.join(f'{text} and ' for text in _absent(job))}"
    if job.repair.work:
        return f"{job.table('work')} as w join {job.whole} as t on {_all(_matched(job))} {where}"
    return f"{job.whole} as t {where}"

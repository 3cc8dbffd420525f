"""SQL for asking what rows would be like after a repair, without changing them.  Pure: from facts of the catalog to texts.

``fresh`` is a subquery with one row for each row that would be written, and every column of the table under its own name, as it
would be then: expressions of indexes, checks and generated columns, which name columns only, can be asked of it as they stand in
the catalog.  Beside them stand, under names that begin with ``mend__``: the row's address (``at``, ``rel``), the columns
that tell it apart (``k1``...), and for the n-th value what was computed (``v1``...) and what is there now (``o1``...).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mend.database import names
from mend.repairs import violations

AT, REL = "mend__at", "mend__rel"


@dataclass(frozen=True)
class Column:
    """One column as ``values/columns.sql`` tells it; types of domains are those below the domain."""

    name: str
    base_type: str
    raw_type: str
    base: str
    element: str
    typmod: int
    not_null: bool
    generation: str
    has_default: bool


@dataclass(frozen=True)
class Change:
    """Rows and what becomes of them; the words of `rows.Repair`."""

    table: str
    values: Mapping[str, str]
    where: str = "true"
    work: str = ""
    match: tuple[str, ...] = ()
    action: Literal["update", "insert"] = "update"

    def joined(self) -> str:
        """FROM and the join with the work list."""
        if self.action == "insert":
            return f"from (\n{self.work}\n) as w"
        return f"from {self.table} as t" + (f" join (\n{self.work}\n) as w on {self.matched()}" if self.work else "")

    def matched(self) -> str:
        return " and ".join(f"t.{column} = w.k{n + 1}" for n, column in enumerate(self.match)) or "true"

    def untouched(self) -> str:
        """True for a row ``t`` that stays as it is."""
        if self.action == "insert":
            return "true"
        if not self.work:
            return f"((\n{self.where}\n) is not true)"
        return f"(not exists (select from (\n{self.work}\n) as w where {self.matched()} and (\n{self.where}\n)))"

    def statement(self) -> str:
        """The whole change in one statement, to be explained and never run."""
        if self.action == "insert":
            return (
                f"insert into {self.table} ({', '.join(self.values)}) select "
                + ", ".join(f"(\n{value}\n)" for value in self.values.values())
                + f" {self.joined()} where (\n{self.where}\n)"
            )
        sets = ", ".join(f"{column} = (\n{value}\n)" for column, value in self.values.items())
        source = f" from (\n{self.work}\n) as w" if self.work else ""
        return f"update {self.table} as t set {sets}{source} where {self.matched()} and (\n{self.where}\n)"


def computed(change: Change, columns: Sequence[Column], keys: Sequence[str], *, only: str = "true") -> str:
    """The rows as they are, and the values computed for them. OFFSET 0 keeps each value from being computed twice, or not at all.

    ``only``: a condition on the address of ``t``, which is looked at first.
    """
    by_name = {column.name: column for column in columns}
    insert = change.action == "insert"
    own = (
        ["cast(null as oid) as " + REL, "cast(null as tid) as " + AT]
        if insert
        else [f"t.tableoid as {REL}", f"t.ctid as {AT}"]
    )
    own += [f"{change.values.get(key, 'null') if insert else f't.{key}'} as {k(n)}" for n, key in enumerate(keys)]
    for n, (name, value) in enumerate(change.values.items()):
        own.append(f"{f'cast(null as {by_name[name].raw_type})' if insert else f't.{name}'} as {old(n)}")
        own.append(f"cast((\n{value}\n) as {by_name[name].raw_type}) as {new(n)}")
    rest = [c for c in columns if c.name not in change.values and not c.generation]
    own += [f"cast(null as {c.raw_type}) as {c.name}" if insert else f"t.{c.name}" for c in rest]
    return f"select {', '.join(own)} {change.joined()} where {only} and (\n{change.where}\n) offset 0"


def fresh(change: Change, columns: Sequence[Column], keys: Sequence[str]) -> str:
    """The rows as they would be. A value that does not fit its column stands there as NULL: it is an objection by itself."""
    position = {name: n for n, name in enumerate(change.values)}
    selected = [
        AT,
        REL,
        *(k(n) for n in range(len(keys))),
        *(old(n) for n in position.values()),
        *(new(n) for n in position.values()),
    ]
    for column in columns:
        if column.name in position:
            value = new(position[column.name])
            selected.append(
                f"case when not ({unfit(column, value)}) then cast({value} as {column.base_type}) end as {column.name}"
            )
        elif not column.generation:
            selected.append(column.name)
    stored = f"select {', '.join(selected)} from ({computed(change, columns, keys)}) as computed"
    generated = [f"({column.generation}) as {column.name}" for column in columns if column.generation]
    return f"select stored.*, {', '.join(generated)} from ({stored}) as stored" if generated else stored


def k(n: int) -> str:
    return f"mend__k{n + 1}"


def old(n: int) -> str:
    return f"mend__o{n + 1}"


def new(n: int) -> str:
    return f"mend__v{n + 1}"


# -- does a value fit its column? --------------------------------------------------------------------------------------


def unfit(column: Column, value: str) -> str:
    """A condition: the value is too long or too large for the column; never NULL. An explicit cast would cut it silently.

    >>> unfit(Column("c", "varchar(5)", "varchar", "varchar", "", 9, False, "", False), "v")
    "coalesce(char_length(v) > 5 and substr(v, 6) ~ '[^ ]', false)"
    """
    if column.element:
        inner = _unfit(column.element, column.typmod, "e.e")
        return f"exists (select from unnest({value}) as e (e) where {inner})" if inner else "false"
    condition = _unfit(column.base, column.typmod, value)
    return f"coalesce({condition}, false)" if condition else "false"


def limit(column: Column) -> str:
    """What the column takes, in words; '' where it takes everything."""
    return column.base_type if _unfit(column.element or column.base, column.typmod, "v") else ""


def _unfit(base: str, typmod: int, value: str) -> str:
    if typmod < 0:
        return ""
    if base == "varchar":  # what is cut off may be spaces
        return f"char_length({value}) > {typmod - 4} and substr({value}, {typmod - 3}) ~ '[^ ]'"
    if base == "bpchar":
        return f"char_length({value}) > {typmod - 4}"
    if base == "numeric":
        precision, scale = ((typmod - 4) >> 16) & 0xFFFF, _scale(typmod - 4)
        bound = "1" + "0" * (precision - scale) if precision >= scale else "0." + "0" * (scale - precision - 1) + "1"
        return f"{value} <> 'NaN' and abs(round({value}, {scale})) >= {bound}"
    return {"bit": f"length({value}) <> {typmod}", "varbit": f"length({value}) > {typmod}"}.get(base, "")


def _scale(bits: int) -> int:
    """Eleven bits with a sign (PostgreSQL 15+), which reads older ones as well."""
    return ((bits & 0x7FF) ^ 0x400) - 0x400


def of_domain(condition: str, value: str) -> str:
    """A domain's condition with VALUE replaced.

    >>> of_domain("(VALUE ~ 'VALUE'::text)", "mend__v1")
    "((mend__v1) ~ 'VALUE'::text)"
    """
    return "".join(f"({value})" if token[0] == "VALUE" else token[0] for token in names.TOKEN.finditer(condition))


# -- is it one of a kind? ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """A unique index, there or wanted: ``keys`` are columns or expressions, with their collations, over the columns of the table.

    ``relation_oid``: 0 for the table itself. ``whole``: it speaks for all partitions, not for one relation's own rows.
    ``operators``: what must hold between two rows for each key, where that is not the equality of GROUP BY (exclusion constraints).
    ``hereafter``: it is to hold when all is done, and not meanwhile.
    """

    identity: str
    keys: tuple[str, ...]
    predicate: str = ""
    nulls_equal: bool = False
    relation_oid: int = 0
    whole: bool = True
    operators: tuple[str, ...] = ()
    hereafter: bool = False

    def rows(self, rel: str) -> str:
        """Which rows it is about."""
        conditions = [f"({self.predicate})"] if self.predicate else []
        conditions += [] if self.nulls_equal else [f"({key}) is not null" for key in self.keys]
        if self.relation_oid and self.whole:
            conditions.append(
                f"{rel} in (select relid from pg_partition_tree(cast({self.relation_oid} as oid)::regclass))"
            )
        elif self.relation_oid:
            conditions.append(f"{rel} = {self.relation_oid}")
        return " and ".join(conditions) or "true"


def wanted(definition: str) -> Key | None:
    """What a definition of a unique constraint or index, as PostgreSQL prints it, makes one of a kind; None for other definitions.

    >>> wanted("UNIQUE NULLS NOT DISTINCT (a, b)")
    Key(identity='the wanted UNIQUE NULLS NOT DISTINCT (a, b)', keys=('a', 'b'), predicate='', nulls_equal=True, relation_oid=0, whole=True, operators=(), hereafter=True)
    >>> wanted('CREATE UNIQUE INDEX ix ON public.t USING btree (lower(a) COLLATE "C" text_pattern_ops DESC) WHERE (b > 0)').keys
    ('lower(a) COLLATE "C"',)
    """
    spaced = names.spaced(definition)
    pieces = [piece for piece in spaced if not piece.isspace()]
    if pieces[:1] not in (["UNIQUE"], ["PRIMARY"]) and pieces[:2] != ["CREATE", "UNIQUE"]:
        return None
    at = spaced.index("WHERE") if "WHERE" in spaced else len(spaced)
    predicate = "".join(spaced[at + 1 :]).strip()
    head = [piece for piece in spaced[:at] if not piece.isspace()]
    group = head[head.index("USING") + 2] if "USING" in head else next(piece for piece in head if piece.startswith("("))
    return Key(
        f"the wanted {definition}",
        tuple(violations.key_items(group)),
        predicate,
        nulls_equal="DISTINCT" in head,
        hereafter=True,
    )


def collisions(change: Change, key: Key, fresh_rows: str, present: str) -> str:
    """Groups of equal keys with at least one row that would be written: k1..kn, ``written`` rows, ``present`` rows (int8).

    GROUP BY goes by the type's usual equality and the key's collation, like the index, and holds NULLs equal, like NULLS NOT
    DISTINCT. Rows that are there are looked at only where their key is one of the new ones. For a key that holds already, they
    count with their present value even if they are to be written too: batches write some rows before others.
    """
    ks = ", ".join(f"k{n + 1}" for n in range(len(key.keys)))
    near = "" if key.nulls_equal else f" where ({ks}) in (select {ks} from written)"
    another = (
        "count(*) > 1"
        if key.hereafter or change.action == "insert"
        else f"(min({AT}) <> max({AT}) or min({REL}) <> max({REL}))"
    )
    return (
        f"with written as materialized ({_written(key, fresh_rows)}) "
        f"select {ks}, count(*) filter (where mine) as written, count(*) filter (where not mine) as present "
        f"from (select *, true as mine from written "
        f"union all select *, false from (select * from ({_there(change, key, present)}) as s{near}) as p) as both_ "
        f"group by {ks} having bool_or(mine) and {another}"
    )


def _written(key: Key, fresh_rows: str) -> str:
    """The keys of the rows as they would be, with their addresses."""
    return f"select {AT}, {REL}, {_listed(key)} from ({fresh_rows}) as fresh where {key.rows(REL)}"


def _there(change: Change, key: Key, present: str) -> str:
    """The keys of the rows that are there and that a new key could meet."""
    stays = change.untouched() if key.hereafter else "true"
    return f"select t.ctid as {AT}, t.tableoid as {REL}, {_listed(key)} from {present} as t where {key.rows('t.tableoid')} and {stays} offset 0"


def _listed(key: Key) -> str:
    return ", ".join(f"({item}) as k{n + 1}" for n, item in enumerate(key.keys))


def clashes(change: Change, key: Key, fresh_rows: str, present: str) -> str:
    """Rows that would be written and clash with another by ``key.operators``, pair by pair: k1..kn, ``written`` 1, ``present`` 0 or 1."""
    ks = ", ".join(f"k{n + 1}" for n in range(len(key.keys)))
    pair = " and ".join(f"w.k{n + 1} {operator} o.k{n + 1}" for n, operator in enumerate(key.operators))
    other = f"(o.{AT}, o.{REL}) is distinct from (w.{AT}, w.{REL})"
    return (
        f"with written as materialized (select row_number() over () as n, w.* from ({_written(key, fresh_rows)}) as w), "
        f"there as materialized ({_there(change, key, present)}), "
        f"found as (select {ks}, exists (select from written as o where o.n <> w.n and {pair}) as mine, "
        f"exists (select from there as o where {other} and {pair}) as theirs from written as w) "
        f"select {ks}, 1 as written, cast(theirs as int) as present from found where mine or theirs"
    )

"""Rows that share a key which is to be unique: which they are, which of them stays, what becomes of the others.  Pure SQL texts.

Equality is the wanted index's own: GROUP BY and PARTITION BY use the type's and the collation's, on the index's own expressions.
Which row stays is decided by an order that leaves no tie: the operator's columns, nulls last, then the row's key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mend.change.act import literal
from mend.database import names
from mend.errors import InvalidParameter
from mend.repairs.violations import Uniqueness

SAMPLE = 20  # groups shown
_MEMBERS = 6  # keys shown of one group
_PLACES = re.compile(r"(\{\w*\})")
_EMAIL_SUFFIX, _SUFFIX = "+dup{n}", "-dup{n}"


@dataclass(frozen=True)
class Column:
    """A column of the table.

    ``text``: a string type; ``folds``: whose equality may overlook case (citext, a nondeterministic collation).  ``length``: characters
    that fit, 0 for any number.  ``computed``: takes no value from an UPDATE.
    """

    name: str
    type: str
    text: bool
    folds: bool = False
    length: int = 0
    nullable: bool = True
    computed: bool = False


@dataclass(frozen=True)
class Reference:
    """A foreign key that points at the table: ``columns`` of ``child`` equal ``referenced``; all quoted."""

    identity: str
    child: str
    columns: tuple[str, ...]
    referenced: tuple[str, ...]
    on_delete: str = "no action"
    computed: bool = False


@dataclass(frozen=True)
class Ranking:
    """Rows that share a key, ranked: ``n`` is 1 for the row that stays.

    ``key``: quoted columns that tell rows apart.  ``order``: (quoted column, descending), before the key.  ``newest``: turned round.
    """

    wanted: Uniqueness
    key: tuple[str, ...]
    order: tuple[tuple[str, bool], ...] = ()
    newest: bool = False

    @property
    def keys(self) -> str:
        """The wanted key, as a list of expressions in bare column names."""
        return ", ".join(self.wanted.keys)

    def filtered(self, alias: str = "t") -> str:
        """``from .. where ..``: the rows that the wanted key is about."""
        return f"from {self.wanted.source} as {alias}" + _where(self.wanted)

    def sorting(self) -> str:
        """ORDER BY within a group: never a tie."""
        terms = [*self.order, *((column, False) for column in self.key)]
        if not terms:
            return "t.ctid"
        return ", ".join(f"t.{column} {'desc' if down != self.newest else 'asc'} nulls last" for column, down in terms)

    def members(self, columns: Mapping[str, str]) -> str:
        """The rows of all groups of two or more: ``columns`` (alias -> expression over t; ``over w`` allowed), ``n``, ``size``."""
        listed = "".join(f"{expression} as {alias}, " for alias, expression in columns.items())
        ranked = (
            f"select {listed}row_number() over w as n, count(*) over g as size {self.filtered()} "
            f"window g as (partition by {self.keys}), w as (g order by {self.sorting()})"
        )
        return f"select * from ({ranked}) as r where size > 1"

    def own_key(self, alias: str = "k") -> dict[str, str]:
        """``k1``, ``k2``..: the columns that tell rows apart."""
        return {f"{alias}{n + 1}": f"t.{column}" for n, column in enumerate(self.key)}


def _where(wanted: Uniqueness) -> str:
    return f" where {wanted.rows()}" if wanted.rows() else ""


# -- questions ---------------------------------------------------------------------------------------------------------


def sizes(ranking: Ranking) -> str:
    """How many groups there are of each size: size, groups; the largest first."""
    groups = f"select {_listed(ranking)}, count(*) as size {ranking.filtered()} group by {_places(ranking)} having count(*) > 1"
    return f"select size, count(*) as groups from ({groups}) as g group by size order by size desc"


def sample(ranking: Ranking) -> str:
    """The largest groups: key_1.., size, and the rows' own keys as texts, the one that stays first."""
    rows = f"(array_agg({row_name(ranking.key)} order by {ranking.sorting()}))[1:{_MEMBERS}]"
    return (
        f"select {_listed(ranking)}, count(*) as size, {rows} as rows {ranking.filtered()} "
        f"group by {_places(ranking)} having count(*) > 1 order by size desc, {_places(ranking)} limit {SAMPLE}"
    )


def _listed(ranking: Ranking) -> str:
    """The wanted key's values, as key_1, key_2..."""
    return ", ".join(f"{key} as key_{n}" for n, key in enumerate(ranking.wanted.keys, start=1))


def _places(ranking: Ranking) -> str:
    """Those, by their places: a key may be a constant, which GROUP BY would take for a place anyway."""
    return ", ".join(str(n) for n, _ in enumerate(ranking.wanted.keys, start=1))


def row_name(key: Sequence[str], alias: str = "t") -> str:
    """A row's own key as one text.

    >>> row_name(("id",)), row_name(("a", "b"))
    ('cast(t.id as text)', "concat_ws('/', t.a, t.b)")
    """
    if len(key) < 2:
        return f"cast({alias}.{key[0] if key else 'ctid'} as text)"
    return f"concat_ws('/', {', '.join(f'{alias}.{column}' for column in key)})"


def folded(ranking: Ranking, columns: Mapping[str, Column]) -> str:
    """Values that differ by case only, which the wanted key lets stand: values, example; '' where it minds case, or never could."""
    keys = ranking.wanted.keys
    plain = [key for key in keys if key in columns and columns[key].text]
    if not plain or any(columns[key].folds for key in plain):
        return ""
    group = ", ".join(f"lower({key})" if key in plain else key for key in keys)
    different = f"count(distinct ({', '.join(keys)}))" if len(keys) > 1 else f"count(distinct {keys[0]})"
    examples = f"(array_agg(distinct {plain[0]}))[1:2]"
    return (
        f"select {different} as spellings, {examples} as examples {ranking.filtered()} "
        f"group by {group} having {different} > 1 order by 1 desc limit {SAMPLE}"
    )


def pointing(ranking: Ranking, reference: Reference) -> str:
    """How many rows of a child point at rows that go, and at rows that stay."""
    aliases = {f"r{n + 1}": f"t.{column}" for n, column in enumerate(reference.referenced)}
    same = " and ".join(f"c.{column} = m.r{n + 1}" for n, column in enumerate(reference.columns))
    return (
        "select count(*) filter (where m.n > 1) as at_others, count(*) filter (where m.n = 1) as at_kept "
        f"from {reference.child} as c join ({ranking.members(aliases)}) as m on {same}"
    )


# -- what becomes of the others: work lists (k1.. tell the row, v1.. are values) ---------------------------------------


def others(ranking: Ranking, values: Mapping[str, str], *, key: Mapping[str, str] | None = None) -> str:
    """Every row but the one that stays: its key, and ``values`` (alias -> expression over t)."""
    columns = {**(key or ranking.own_key()), **values}
    return f"select {', '.join(columns)} from ({ranking.members(columns)}) as o where n > 1 order by {', '.join(key or ranking.own_key())}"


def suffixed(ranking: Ranking, column: str, pattern: str) -> str:
    """Work list: ``v1`` the new text of ``column``, ``v2`` the present one.

    Raises: InvalidParameter for a pattern without ``{n}`` and ``{key}``.
    """
    columns = {**ranking.own_key(), "v2": f"t.{column}"}
    keys = ", ".join(ranking.own_key())
    old = 'cast(v2 as text) collate "C"'
    before, after = (f"split_part({old}, '@', {n})" for n in (1, 2))
    in_email, at_end = (_pattern(pattern or default, ranking) for default in (_EMAIL_SUFFIX, _SUFFIX))
    is_email = f"length({old}) - length(replace({old}, '@', '')) = 1 and {before} <> '' and {after} <> ''"
    # Cut up byte by byte: not every function takes every collation. What comes out has none of its own, as a new value has.
    new = f"(case when {is_email} then {before} || {in_email} || '@' || {after} else {old} || {at_end} end) collate \"default\""
    return f"select {keys}, {new} as v1, v2 from ({ranking.members(columns)}) as o where n > 1 order by {keys}"


def _pattern(pattern: str, ranking: Ranking) -> str:
    """A suffix as an SQL text: ``{n}`` the place in the group (2, 3..), ``{key}`` the row's own key."""
    known = {
        "{n}": "cast(n as text)",
        "{key}": f"concat_ws('-', {', '.join(ranking.own_key())})",
    }
    places = _PLACES.findall(pattern)
    if not places or not set(places) <= known.keys():
        raise InvalidParameter(
            f"suffix is {pattern!r}. Nothing was changed. Write {{n}} where the row's place in its group goes (2, 3..), or {{key}} for "
            "its own key, e.g. -dup{n}."
        )
    return " || ".join(known.get(part) or literal(part) for part in _PLACES.split(pattern) if part)


def movers(ranking: Ranking, reference: Reference, key: Sequence[str]) -> str:
    """Work list: rows of a child that point at a row that goes.  Their own ``key``, what they shall hold (v1..), what they hold (after it).

    Without a key: what they hold (k1..) and what they shall hold (v1..).
    """
    held, aim = _pointers(ranking, reference)
    known = " and ".join(f"m.{alias} is not null" for alias in aim)
    found = f"({ranking.members({**held, **aim})}) as m"
    if not key:
        listed = [f"m.{one} as k{n}" for n, one in enumerate(held, 1)] + [
            f"m.{one} as v{n}" for n, one in enumerate(aim, 1)
        ]
        return f"select {', '.join(listed)} from {found} where m.n > 1 and {known} order by {_counted('k', len(held))}"
    listed = [f"c.{column} as k{n}" for n, column in enumerate(key, 1)]
    listed += [f"m.{one} as v{n}" for n, one in enumerate([*aim, *held], 1)]
    same = " and ".join(f"c.{column} = m.{one}" for column, one in zip(reference.columns, held, strict=True))
    source = f"{reference.child} as c join {found} on {same}"
    return f"select {', '.join(listed)} from {source} where m.n > 1 and {known} order by {_counted('k', len(key))}"


def circles(ranking: Ranking, reference: Reference) -> str:
    """Rows that stay and point at a row of their own group that goes: they would point at themselves.  '' where that cannot be."""
    if reference.child != ranking.wanted.table or len(reference.columns) > 1:
        return ""
    own, other = reference.columns[0], reference.referenced[0]
    columns = {
        "row_key": row_name(ranking.key),
        "held": f"t.{own}",
        "own": f"t.{other}",
        "all_own": f"array_agg(t.{other}) over g",
    }
    return f"select row_key, held from ({ranking.members(columns)}) as m where n = 1 and held = any(all_own) and held <> own limit {SAMPLE}"


def _pointers(ranking: Ranking, reference: Reference) -> tuple[dict[str, str], dict[str, str]]:
    """What points at a row (r1..), and at the row of its group that stays (w1..): alias -> expression."""
    numbered = list(enumerate(reference.referenced, start=1))
    return (
        {f"r{n}": f"t.{column}" for n, column in numbered},
        {f"w{n}": f"first_value(t.{column}) over w" for n, column in numbered},
    )


def _counted(letter: str, count: int) -> str:
    return ", ".join(f"{letter}{n}" for n in range(1, count + 1))


def losers(ranking: Ranking) -> str:
    """Work list of the rows that go: their key, the wanted key's values (v1..), and the key of the row that stays."""
    values = {f"v{n}": key for n, key in enumerate(ranking.wanted.keys, start=1)}
    first = len(values) + 1
    values |= {f"v{n}": f"first_value(t.{column}) over w" for n, column in enumerate(ranking.key, start=first)}
    return others(ranking, values)


def still_a_loser(ranking: Ranking) -> str:
    """The condition, over t and w, under which a listed row may go: it and the row that stays have the same key as when it was listed."""
    wanted = ranking.wanted
    alike = [_unchanged(key, "t", f"w.v{n}") for n, key in enumerate(wanted.keys, start=1)]
    first = len(wanted.keys) + 1
    kept = [f"o.{column} = w.v{n}" for n, column in enumerate(ranking.key, start=first)]
    kept += [_unchanged(key, "o", f"w.v{n}") for n, key in enumerate(wanted.keys, start=1)]
    alike, kept = [*alike, *_counts(wanted, "t")], [*kept, *_counts(wanted, "o")]
    return " and ".join([*alike, f"exists (select from {wanted.source} as o where {' and '.join(kept)})"])


def still_alike(ranking: Ranking, reference: Reference) -> str:
    """The condition, over w of `movers`, under which the row that is pointed at and the row that stays still share the key."""
    wanted, width = ranking.wanted, len(reference.referenced)
    same = [f"l.{column} = w.v{width + n} and o.{column} = w.v{n}" for n, column in enumerate(reference.referenced, 1)]
    same += [f"{_of_row(key, 'l')} is not distinct from {_of_row(key, 'o')}" for key in wanted.keys]
    same += [*_counts(wanted, "l"), *_counts(wanted, "o")]
    return f"exists (select from {wanted.source} as l, {wanted.source} as o where {' and '.join(same)})"


def _counts(wanted: Uniqueness, alias: str) -> list[str]:
    """Whether a row is one that the key is about: its predicate holds."""
    return [_of_row(wanted.rows(), alias)] if wanted.rows() else []


def _of_row(expression: str, alias: str) -> str:
    """An expression in bare column names, for one row: only that row's columns are in its sight."""
    return f"(select {expression} from (select {alias}.*) as s)"


def _unchanged(expression: str, alias: str, value: str) -> str:
    """Whether an expression in bare column names still gives this value for one row."""
    return f"{_of_row(expression, alias)} is not distinct from {value}"


# -- what the operator says ----------------------------------------------------------------------------------------------


def order_of(text: str, columns: Mapping[str, Column]) -> tuple[tuple[str, bool], ...]:
    """The operator's order: ``last_login desc, created_at``; the first row stays.

    Raises: InvalidParameter naming the columns that there are.
    """
    found = []
    for item in filter(None, names.items(f"({text})")):
        match = re.fullmatch(r"(?P<name>.+?)(?:\s+(?P<word>asc|desc))?", item, re.IGNORECASE)
        name = match["name"].strip() if match else item
        same = [one for one in columns if one == name or names.unquoted(one) == names.unquoted(name)]
        if not same:
            raise InvalidParameter(
                f"order_by names {item!r}, which is no column of the table. Nothing was changed. It has: {', '.join(columns)}."
            )
        found.append((same[0], bool(match and (match["word"] or "").lower() == "desc")))
    return tuple(found)

"""Whether a statement writes a whole table anew, read from its text (facts: relfilenode watched on 13 to 18). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mend.database.sqltext import IF, NAME, PART, actions

#: Quoted column -> its type before and after, for what no text of ALTER COLUMN TYPE tells.
Types = Mapping[str, tuple[str, str]]

_VOLATILE = re.compile(
    r"\b(?:clock_timestamp|gen_random_uuid|uuid_generate_v\w+|uuidv4|uuidv7|random|nextval|timeofday|txid_current|pg_current_xact_id) \("
)
_STABLE = re.compile(
    r"\b(?:now|transaction_timestamp|statement_timestamp) \( \)|\bcurrent_\w+|\blocaltime\w*|\bsession_user\b|\buser\b"
)
_TYPES = re.compile(
    r"(?:pg_catalog\.)?(?:small|big)?int(?:eger|2|4|8)?\b|text\b|character\b|varchar\b|char\b|bpchar\b|bool|numeric\b|decimal\b|real\b|float"
    r"|double precision|date\b|time|interval\b|uuid\b|jsonb?\b|bytea\b|inet\b|cidr\b|macaddr|xml\b|bit\b|tsvector\b|tsquery\b|oid\b|name\b"
)


def statement_rewrites(statement: str, types: Types | None = None, *, utc: bool | None = None) -> bool | None:
    """For one statement in normal form; of what is no ALTER TABLE, only the few that are known to write anew do.

    ``utc``: whether the session's TimeZone is UTC, which decides about timestamp and timestamptz; None: not known.
    """
    if re.match(r"vacuum (?:\( [^()]*\bfull\b|full\b)|cluster\b|refresh materialized view (?!concurrently)", statement):
        return True
    if match := re.match(rf"alter (?:foreign )?table {IF}(?:only )?{NAME}(?: \*)? (?P<rest>.*)", statement):
        answers = [_action_rewrites(action, types or {}, utc) for action in actions(match["rest"])]
        return True if True in answers else None if None in answers else False
    return False


def _action_rewrites(action: str, types: Types, utc: bool | None) -> bool | None:
    """Facts 1.3: what watching relfilenode showed, the same from 13 to 18."""
    if re.match(r"set (?:un)?logged|set tablespace|set access method", action):
        return True
    if typed := re.match(rf"alter (?:column )?(?P<column>{PART}) (?:set data )?type (?P<rest>.*)", action):
        return _type_rewrites(typed["column"], typed["rest"], types, utc)
    if re.match(r"alter (?:column )?\S+ set expression", action):
        return True  # every stored value is computed anew (PostgreSQL 17)
    column = re.match(
        rf"add (?:column )?{IF}(?!constraint |check |unique |primary |foreign |exclude |not )\S+ (?P<rest>.*)", action
    )
    return _column_rewrites(column["rest"]) if column else False


def _column_rewrites(definition: str) -> bool | None:
    """ADD COLUMN: a default is kept in the catalog if it is the same for every row."""
    if re.match(r"(?:small|big)?serial", definition) or re.search(
        r" generated .* as identity| generated always as \(.*\) stored", definition
    ):
        return True
    default = re.search(
        r" default (.*?)(?: not null| null| constraint | check | unique| primary key| references |$)", definition
    )
    if default and _VOLATILE.search(default[1]):
        return True
    if default and re.search(rf"{NAME} \(", re.sub(r"\b(?:cast|coalesce) \(", "", _STABLE.sub("", default[1]))):
        return None
    # a domain with a constraint is written into every row, an enum is not: the name of a type does not say which it is
    return False if _TYPES.match(definition) else None


def _type_rewrites(column: str, rest: str, types: Types, utc: bool | None) -> bool | None:
    using = rest.partition(" using ")[2].replace("( ", "").replace(" )", "")
    if using and not re.fullmatch(rf"{re.escape(column)}(?: : : .*)?", using):
        return True  # computed from something else than the value as it stands
    known = types.get(column)
    return type_rewrites(*known, utc=utc) if known else None


def type_rewrites(before: str, after: str, *, utc: bool | None = None) -> bool | None:
    """Whether a column's change of type writes its table anew; types as format_type prints them.  None: not known here.

    >>> type_rewrites("character varying(40)", "text"), type_rewrites("integer", "bigint")
    (False, True)
    >>> [type_rewrites("timestamp without time zone", "timestamp with time zone", utc=zone) for zone in (True, False, None)]
    [False, True, None]
    """
    (old, was), (new, now) = _parted(before), _parted(after)
    if not (_TYPES.match(old) and _TYPES.match(new)):
        return None
    if {old, new} == _STAMPS:
        return True if _shrinks(was, now) else None if utc is None else not utc
    if old == new:
        return _length_rewrites(old, was, now)
    if (old, new) in _COERCED:
        return bool(now)  # text into a limited one is looked at and cut
    return True


_STAMPS = {"timestamp without time zone", "timestamp with time zone"}
#: Pairs whose values are the same bytes, so that nothing is converted (pg_cast.castmethod 'b').
_COERCED = frozenset([("character varying", "text"), ("text", "character varying"), ("cidr", "inet")])
_PADDED = frozenset(["character", "bit"])


def _parted(definition: str) -> tuple[str, tuple[int, ...]]:
    """``numeric(12,2)`` -> ("numeric", (12, 2)); a collation is no part of the values."""
    text = re.split(r" collate | generated ", definition)[0]
    numbers = re.search(r"\(([\d,]+)\)", text)
    return re.sub(r"\([\d,]+\)", "", text), tuple(int(n) for n in numbers[1].split(",")) if numbers else ()


def _length_rewrites(name: str, was: tuple[int, ...], now: tuple[int, ...]) -> bool:
    if was == now:
        return False
    if name in _PADDED:
        return True  # every value is as long as the type says
    if name == "numeric":
        return bool(now) and (not was or now[1:] != was[1:] or now[0] < was[0])
    return _shrinks(was, now)


def _shrinks(was: tuple[int, ...], now: tuple[int, ...]) -> bool:
    """Whether a limit comes, or becomes smaller."""
    return bool(now) and (not was or now < was)

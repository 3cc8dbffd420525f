"""Whether a statement writes a whole table anew, read from its text (facts: relfilenode watched on 13 to 18). Pure."""

from __future__ import annotations

import re

from mend.sqltext import IF, NAME, actions

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


def statement_rewrites(statement: str) -> bool | None:
    """For one statement in normal form; of what is no ALTER TABLE, only the few that are known to write anew do."""
    if re.match(r"vacuum (?:\( [^()]*\bfull\b|full\b)|cluster\b|refresh materialized view (?!concurrently)", statement):
        return True
    if match := re.match(rf"alter (?:foreign )?table {IF}(?:only )?{NAME}(?: \*)? (?P<rest>.*)", statement):
        answers = [_action_rewrites(action) for action in actions(match["rest"])]
        return True if True in answers else None if None in answers else False
    return False


def _action_rewrites(action: str) -> bool | None:
    """Facts 1.3: what watching relfilenode showed, the same from 13 to 18."""
    if re.match(r"set (?:un)?logged|set tablespace|set access method", action):
        return True
    if re.match(r"alter (?:column )?\S+ (?:set data )?type |alter (?:column )?\S+ set expression", action):
        return None
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

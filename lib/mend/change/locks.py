"""Which locks a statement takes, read from its text: what the operator must know before it runs. Pure.

The modes are PostgreSQL's for versions 13 to 18 (docs, "Explicit Locking" and each command's page); ``test_locks.py`` runs the
statements on a real server and compares with ``pg_locks``. It knows the statements that Alembic and people write. What it does
not know it calls ``?`` with the strongest mode: never a lock too few.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from mend.change.rewriting import Types, statement_rewrites
from mend.database.sqltext import IF, NAME, PART, actions, statements
from mend.plan import Lock

__all__ = ["MODES", "TABLE_OF", "UNKNOWN", "Lock", "locks_of", "rewrites", "runs_in_transaction"]

#: Weakest first. From SHARE UPDATE EXCLUSIVE on a statement conflicts with itself; from SHARE on it blocks writers;
#: ACCESS EXCLUSIVE blocks readers too.
MODES = (
    "ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)  # fmt: skip
AS, RS, RX, SUE, S, SRX, X, AX = MODES


#: Before an index's name: the lock is on the index's table, whose name the statement does not say.
TABLE_OF = "table of "
UNKNOWN = Lock("?", AX, "not recognised: assume the strongest")


def locks_of(sql: str) -> tuple[Lock, ...]:
    """The locks on relations that a statement takes, one per relation, each with its strongest mode.

    A relation that the statement itself makes is left out: nobody else sees it. The locks of a whole text of several
    statements are those of all.

    >>> locks_of("ALTER TABLE a ADD CONSTRAINT f FOREIGN KEY (b) REFERENCES c (id)")[1]
    Lock(relation='c', mode='SHARE ROW EXCLUSIVE', note='the table that it refers to')
    """
    return _strongest(lock for statement in statements(sql) for lock in _locks(statement))


def rewrites(sql: str, *, types: Types | None = None, utc: bool | None = None) -> bool | None:
    """Whether a statement writes a whole table or materialized view anew; None when that cannot be told.

    ``types``: quoted column -> its type before and after, where a type changes; ``utc``: whether TimeZone is UTC.

    >>> rewrites("alter table t add column a integer default 0"), rewrites("alter table t add column a uuid default gen_random_uuid()")
    (False, True)
    """
    answers = [_rewrites(statement, types, utc) for statement in statements(sql)]
    return True if True in answers else None if None in answers else False


def runs_in_transaction(sql: str) -> bool:
    """Whether PostgreSQL lets the statement run inside a transaction block."""
    return not any(_OUTSIDE.match(statement) for statement in statements(sql))


def _rewrites(statement: str, types: Types | None, utc: bool | None) -> bool | None:
    """Unknown for what we do not know, not False."""
    return None if _locks(statement) == (UNKNOWN,) else statement_rewrites(statement, types, utc=utc)


def _strongest(locks: Iterable[Lock]) -> tuple[Lock, ...]:
    """One lock per relation, in the order of their first mention."""
    found: dict[str, Lock] = {}
    for lock in locks:
        known = found.get(lock.relation)
        if known is None:
            found[lock.relation] = lock
        else:
            mode = max(known.mode, lock.mode, key=MODES.index)
            notes = dict.fromkeys(note for note in (known.note, lock.note) if note)
            found[lock.relation] = Lock(lock.relation, mode, "; ".join(notes))
    return tuple(found.values())


def _locks(statement: str) -> tuple[Lock, ...]:
    """The first rule whose pattern matches; a text that none knows gets the strongest."""
    for pattern, rule in _RULES:
        if match := pattern.match(statement):
            return rule(match, statement)
    return (UNKNOWN,)


Rule = Callable[[re.Match[str], str], tuple[Lock, ...]]


def _fixed(mode: str, note: str = "") -> Rule:
    """One mode on every relation of a comma-separated list in the group ``rel``."""

    def rule(match: re.Match[str], _: str) -> tuple[Lock, ...]:
        return tuple(Lock(name, mode, note) for name in _names(match["rel"]))

    return rule


def _names(text: str) -> list[str]:
    """``a , only b *`` -> ["a", "b"]."""
    return [name for name in re.findall(NAME, text) if name != "only"]


def _none(_: re.Match[str], __: str) -> tuple[Lock, ...]:
    """No lock on a relation that anybody else uses."""
    return ()


def _reading(statement: str) -> tuple[Lock, ...]:
    """The relations that a query reads: what follows FROM and JOIN, and is neither a function nor a WITH query."""
    own = set(
        re.findall(rf"(?:with(?: recursive)?|,) ({NAME}) (?:\( [^()]* \) )?as (?:(?:not )?materialized )?\(", statement)
    )
    mode = RS if re.search(r" for (?:no key )?(?:update|share)\b| for key share\b", statement) else AS
    found: list[str] = []
    for clause in re.finditer(rf"\b(?:from|join|using|table)(?: only)? ({_READ}(?: , {_READ})*)(?! \()", statement):
        found += [_names(item)[0] for item in clause[1].split(" , ")]
    return tuple(Lock(name, mode) for name in found if name not in own and name not in __NOT_NAMES)


_READ = rf"{NAME}(?: as \w+| (?!(?:using|where|on|join|left|right|full|inner|cross|natural|set|group|order|limit|returning|for|union)\b)\w+)?"
__NOT_NAMES = frozenset({"select", "lateral", "only", "values", "unnest", "generate_series", "jsonb_array_elements"})


def _query(_: re.Match[str], statement: str) -> tuple[Lock, ...]:
    """SELECT, INSERT, UPDATE, DELETE, MERGE, with or without WITH: the written relation, and those that are read."""
    writes = re.findall(
        rf"\b(?:insert into|(?<!for )update(?: only)?|delete from(?: only)?|merge into) ({NAME})", statement
    )
    writes = [name for name in writes if name not in ("set", "skip", "nowait", "of")]
    written = tuple(Lock(name, RX) for name in writes)
    return written + tuple(lock for lock in _reading(statement) if lock.relation not in writes)


def _alter_table(match: re.Match[str], _: str) -> tuple[Lock, ...]:
    """The strongest of all actions; a foreign key and a partition lock a second table."""
    found: list[Lock] = []
    for action in actions(match["rest"]):
        found += _action(match["rel"], action)
    return tuple(found)


def _action(table: str, action: str) -> tuple[Lock, ...]:
    """One action of ALTER TABLE."""
    for pattern, mode, note in _ACTIONS:
        if match := re.match(pattern, action):
            found = [Lock(table, mode, note)]
            if referenced := re.search(rf" references ({NAME})", action):
                found.append(Lock(referenced[1], SRX, "the table that it refers to"))
            if "other" in match.re.groupindex:
                found.append(Lock(match["other"], SUE if pattern.startswith("(no )?inherit") else AX))
            return tuple(found)
    return (Lock(table, AX, "action not recognised: assume the strongest"),)


_SCAN = "reads the whole table meanwhile"
_BUILD = "builds an index meanwhile"
_ACTIONS: tuple[tuple[str, str, str], ...] = (
    (r"validate constraint", SUE, f"{_SCAN}; of a foreign key: ROW SHARE on the table that it refers to"),
    (r"add (?:constraint \S+ )?foreign key .* not valid$", SRX, ""),
    (r"add (?:constraint \S+ )?foreign key ", SRX, "reads both tables meanwhile"),
    (r"add (?:constraint \S+ )?(?:unique|primary key) using index", AX, ""),
    (r"add (?:constraint \S+ )?(?:unique|primary key|exclude)\b", AX, _BUILD),
    (r"add (?:constraint \S+ )?(?:check|not null) .* not valid$", AX, ""),
    (r"add (?:constraint \S+ )?(?:check|not null)\b", AX, _SCAN),
    (r"(?:enable|disable)(?: replica| always)? trigger", SRX, ""),
    (r"alter (?:column )?\S+ set statistics", SUE, ""),
    (r"alter (?:column )?\S+ (?:re)?set \(", SUE, ""),
    (r"alter (?:column )?\S+ (?:set data )?type ", AX, "may write the whole table and its indexes anew meanwhile"),
    (r"alter (?:column )?\S+ set not null", AX, f"{_SCAN}, unless a valid CHECK proves it"),
    (r"cluster on|set without cluster", SUE, ""),
    (r"(?:re)?set \(", SUE, ""),
    (
        rf"attach partition (?P<other>{NAME})",
        SUE,
        "reads the partition meanwhile, unless a valid CHECK proves its bound",
    ),
    (rf"detach partition (?P<other>{NAME}) concurrently", SUE, ""),
    (rf"detach partition (?P<other>{NAME})", AX, ""),
    (rf"(no )?inherit (?P<other>{NAME})", AX, ""),
    (r"drop constraint", AX, "of a foreign key: on the table that it refers to as well"),
    (r"drop (?:column )?", AX, "of a column with a foreign key: on the table that it refers to as well"),
    (r"set (?:un)?logged|set tablespace|set access method", AX, "writes the whole table anew meanwhile"),
    (r"add |alter |rename |set |owner to |enable |disable |force |no force |replica identity |of |not of", AX, ""),
)


def _create_table(match: re.Match[str], statement: str) -> tuple[Lock, ...]:
    """The new table is nobody else's yet; those that it refers to, inherits from or copies are."""
    found = [Lock(name, SRX, "the table that it refers to") for name in re.findall(rf" references ({NAME})", statement)]
    found += [Lock(name, AX, "the partitioned table") for name in re.findall(rf" partition of ({NAME})", statement)]
    for parents in re.findall(r" inherits \( (.*?) \)", statement):
        found += [Lock(name, SUE) for name in re.findall(NAME, parents)]
    found += [Lock(name, AS) for name in re.findall(rf"[(,] like ({NAME})", statement)]
    if re.search(r" as (?:select|with|table|\()", statement):
        found += _reading(statement)
    own = match["rel"]
    return tuple(lock for lock in found if lock.relation != own)


def _create_view(match: re.Match[str], statement: str) -> tuple[Lock, ...]:
    replaced = (Lock(match["rel"], AX, "the view itself"),) if " or replace " in statement.partition(" as ")[0] else ()
    return replaced + _reading(statement.partition(" as ")[2])


def _drop_index(mode: str) -> Rule:
    def rule(match: re.Match[str], _: str) -> tuple[Lock, ...]:
        names = re.findall(NAME, match["rel"])
        return tuple(lock for name in names for lock in (Lock(TABLE_OF + name, mode), Lock(name, mode)))

    return rule


def _reindex(match: re.Match[str], statement: str) -> tuple[Lock, ...]:
    mode = SUE if " concurrently " in f" {statement} " else S
    if match["what"] == "table":
        return (Lock(match["rel"], mode, _BUILD),)
    if match["what"] == "index":
        index = SUE if mode == SUE else AX
        return (Lock(TABLE_OF + match["rel"], mode, _BUILD), Lock(match["rel"], index))
    return (Lock("?", AX, "every table, one after the other"),)


def _owned_by(match: re.Match[str], _: str) -> tuple[Lock, ...]:
    return (Lock(match["rel"], SRX), Lock(match["table"], AS))


def _drop_statistics(match: re.Match[str], _: str) -> tuple[Lock, ...]:
    return tuple(Lock(TABLE_OF + name, SUE) for name in _names(match["rel"]))


def _lock_table(match: re.Match[str], _: str) -> tuple[Lock, ...]:
    mode = (match["mode"] or AX).upper()
    return tuple(Lock(name, mode) for name in _names(match["rel"]))


_LIST = rf"(?P<rel>(?:only )?{NAME}(?: \*)?(?: , (?:only )?{NAME}(?: \*)?)*)"
_ONE = rf"(?P<rel>{NAME})"
_HELD = "trigger|rule|policy|constraint"
_DEFINITIONS = (
    "function|procedure|routine|aggregate|schema|type|domain|cast|operator|collation|role|user|group|extension|language|event trigger"
    "|text search|server|foreign data wrapper|user mapping|access method|database|tablespace|conversion|transform|default privileges"
)


def _rule(pattern: str, rule: Rule) -> tuple[re.Pattern[str], Rule]:
    return re.compile(pattern), rule


_FK = "and on the tables that it refers to"
_RULES: tuple[tuple[re.Pattern[str], Rule], ...] = (
    _rule(rf"alter (?:foreign )?table {IF}(?:only )?{_ONE}(?: \*)? (?P<rest>.*)", _alter_table),
    _rule(rf"create (?:unique )?index concurrently .*?on (?:only )?{_ONE} (?:using|\()", _fixed(SUE, "waits for every older transaction")),
    _rule(rf"create (?:unique )?index .*?on (?:only )?{_ONE} (?:using|\()", _fixed(S, _BUILD)),
    _rule(rf"drop index concurrently {IF}{_LIST}", _drop_index(SUE)),
    _rule(rf"drop index {IF}{_LIST}", _drop_index(AX)),
    _rule(rf"alter index {IF}{_ONE} (?:attach|set tablespace)", _fixed(AX)),
    _rule(rf"alter index {IF}{_ONE} ", _fixed(SUE)),
    _rule(rf"create (?:temp |temporary |unlogged )*table {IF}{_ONE}", _create_table),
    _rule(rf"create (?:or replace )?(?:temp |temporary |recursive )*view {_ONE}", _create_view),
    _rule(rf"create materialized view {IF}{_ONE}", _create_view),
    _rule(rf"drop table {IF}{_LIST}", _fixed(AX, _FK)),
    _rule(rf"drop (?:materialized view|view|sequence|foreign table) {IF}{_LIST}", _fixed(AX)),
    _rule(rf"refresh materialized view concurrently {_ONE}", _fixed(X, _SCAN)),
    _rule(rf"refresh materialized view {_ONE}", _fixed(AX, "writes it anew meanwhile")),
    _rule(rf"alter (?:materialized view|view) {IF}{_ONE}", _fixed(AX)),
    _rule(rf"alter sequence {IF}{_ONE} (?:owner|rename|set schema|set (?:un)?logged)", _fixed(AX)),
    _rule(rf"alter sequence {IF}{_ONE} .*owned by (?P<table>{NAME})\.{PART}$", _owned_by),
    _rule(rf"alter sequence {IF}{_ONE}", _fixed(SRX)),
    _rule(rf"create (?:or replace )?(?:constraint )?trigger .*? on {_ONE} ", _fixed(SRX)),
    _rule(rf"create (?:or replace )?rule .*? to {_ONE} ", _fixed(AX)),
    _rule(rf"(?:drop|alter) (?:trigger|rule|policy) .*? on {_ONE}", _fixed(AX)),
    _rule(rf"create policy .*? on {_ONE}", _fixed(AX)),
    _rule(rf"truncate (?:table )?{_LIST}", _fixed(AX)),
    _rule(rf"lock (?:table )?{_LIST}(?: in (?P<mode>[a-z ]+) mode)?", _lock_table),
    _rule(rf"vacuum (?:\( [^()]*\bfull\b[^()]* \) |full )(?:verbose |analyze )*{_ONE}", _fixed(AX, "writes the whole table anew meanwhile")),
    _rule(rf"(?:vacuum|analyze|analyse) (?:\( [^()]* \) )?(?:freeze |verbose |analyze )*{_ONE}", _fixed(SUE)),
    _rule(rf"cluster (?:\( [^()]* \) |verbose )?{_ONE}", _fixed(AX, "writes the whole table anew meanwhile")),
    _rule(rf"reindex (?:\( [^()]* \) )?(?P<what>\w+) (?:concurrently )?{_ONE}", _reindex),
    _rule(rf"create statistics .* from {_ONE}", _fixed(SUE)),
    _rule(rf"drop statistics {IF}{_LIST}", _drop_statistics),
    _rule(rf"comment on column (?P<rel>{NAME})\.{PART}", _fixed(SUE)),
    _rule(rf"comment on (?:table|view|materialized view|sequence|index|foreign table) {_ONE}", _fixed(SUE)),
    _rule(rf"comment on (?:{_HELD}) {NAME} on (?!domain ){_ONE}", _fixed(AS)),
    _rule(rf"copy {_ONE} (?:\( [^()]* \) )?from", _fixed(RX)),
    _rule(r"(?:with|select|insert|update|delete|merge|values|table)\b", _query),
    _rule(rf"(?:create (?:or replace )?|alter |drop |comment on )(?:{_DEFINITIONS}|constraint)\b", _none),
    _rule(r"create (?:temp |temporary |unlogged )*sequence", _none),
    _rule(rf"(?:grant|revoke) .*? on (?:table )?(?!(?:{_DEFINITIONS}|sequence|all)\b){_LIST} (?:to|from)\b", _fixed(AS)),
    _rule(r"grant|revoke|set|reset|show|begin|start|commit|end|rollback|abort|savepoint|release|discard|listen|notify|unlisten|alter system", _none),
)  # fmt: skip

_OUTSIDE = re.compile(
    r"create (?:unique )?index concurrently|drop index concurrently|reindex .*\bconcurrently\b|reindex (?:\( .* \) )?(?:schema|database|system)"
    r"|vacuum|(?:create|drop) (?:database|tablespace|subscription)|alter system|alter database \S+ set tablespace"
    r"|alter table .* detach partition \S+ concurrently|cluster(?: verbose)?$|discard all|begin|start transaction|commit|end$|rollback(?! to)|abort"
    r"|prepare transaction"
)

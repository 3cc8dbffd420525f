"""What a database's schema consists of, as rows (kind, identity, definition), and how two such snapshots differ.

Every facet is a row of its own, so that a difference is an addition, a removal or a change of one small thing. Identities are
quoted and dotted, so that one is one, whatever is in the name:

==================  =====================================  ==========================================================
kind                identity                               definition
==================  =====================================  ==========================================================
schema, extension   ``app``                                ``schema``; ``schema public version '1.6'``
table               ``public.t``                           ``permanent`` | ``unlogged`` [`` partition by RANGE (c)``]
partition           ``public.t``                           ``public.parent FOR VALUES ...``
inherits            ``public.t``                           ``public.parent, public.other``
option              ``public.t.fillfactor``                ``70``; of tables, views and matviews, ``toast.`` too
row_security        ``public.t``                           ``enabled`` | ``enabled, forced`` | ``forced``
tablespace          ``public.t``                           its name; of tables, matviews and indexes outside the database's own
foreign_option      ``public.ft.c.column_name``            the value; of foreign tables and their columns, passwords left out
replica_identity    ``public.t``                           ``full`` | ``nothing`` | ``using index ix``
column              ``public.t.c``                         type, collation, identity or generation expression
column_setting      ``public.t.c.statistics``              ``200``; also ``storage``, ``compression``, ``n_distinct``
default, not_null   ``public.t.c``                         the expression; ``not null`` [`` not valid``]
constraint          ``public.t.ck``                        pg_get_constraintdef; not the NOT NULL constraints of 18
index               ``public.ix``                          pg_get_indexdef and, if not valid, INDEX_STATES
sequence            ``public.s``                           parameters, never the position; not those of identity columns
sequence_owner      ``public.s``                           ``public.t.c``
view, matview       ``public.v``                           a comment with the columns' names and types; the query
function            ``public.f(integer)``                  pg_get_functiondef; procedures too
aggregate           ``public.f(integer)``                  ``(sfunc = ..., stype = ...)``
trigger             ``public.t.tr``                        pg_get_triggerdef; a table's, or a view's
trigger_state       ``public.t.tr``                        ``disabled`` | ``replica`` | ``always``; enabled has no row
rule, policy        ``public.t.r``                         the statement; ``as permissive for select to ... using ...``
enum                ``public.mood``                        ``('sad', 'happy')``
domain              ``public.email``                       type, collation, default, not null
domain_constraint   ``public.email.ck``                    pg_get_constraintdef
composite, range    ``public.pair``                        ``(a integer, b text)``; ``(subtype = integer)``
statistics          ``public.st``                          pg_get_statisticsobjdef
comment             ``column public.t.c``                  the text; the identity is what COMMENT ON takes
grant               ``table public.t to alice``            privileges; ``none`` for a default one that was revoked
owner               ``table public.t``                     the role
default_privilege   ``for bob in app on tables to alice``  privileges; ``none`` for a default one that was revoked
setting             ``database.work_mem``                  the value; ``role alice.work_mem`` too, where it holds in this database only
user_mapping        ``server.alice``                       ``present``: its options are secrets
publication, event_trigger, foreign_server, foreign_table; and, with the definition ``present`` only, collation, operator,
operator_class, operator_family, cast, conversion, text_search_configuration, text_search_dictionary, language, access_method,
foreign-data_wrapper
==================  =====================================  ==========================================================

Left out: system schemas, temporary objects, what extensions brought, and schemas whose comment begins with ``mend:``. What a
partition or child has from its parent is the parent's. Not seen at all: the order of columns, CLUSTER marks, the names of NOT NULL
constraints, settings of a role in every database, and rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mend.database import queries

if TYPE_CHECKING:
    import pandas
    from sqlalchemy import Connection

#: One statement without binds, percent signs or colons: any driver's raw cursor takes it as it is. It changes no setting for
#: longer than it runs, inside a transaction or outside.
SNAPSHOT_SQL: str = queries.question("catalog/objects").sql

COLUMNS = ("kind", "identity", "definition")

#: Who owns and who may: roles belong to the server, so a comparison across servers leaves these kinds out.
ROLE_KINDS = frozenset({"owner", "grant", "default_privilege", "user_mapping"})

#: What ends the definition of an index that is not valid, and what it means (facts 1.5).
INDEX_STATES = {
    " INVALID": "not used, not kept up to date",
    " INVALID, ready": "not used, but kept up to date; a unique one is enforced",
    " INVALID, dead": "being dropped",
    " INVALID, not attached to all partitions": "normal, until an index of every partition is attached",
}


@dataclass(frozen=True, order=True)
class Change:
    """One facet that differs: ``before`` is None for an addition, ``after`` for a removal."""

    kind: str
    identity: str
    before: str | None
    after: str | None

    def reversed(self) -> Change:
        """The change that takes this one back."""
        return Change(self.kind, self.identity, self.after, self.before)


def snapshot(conn: Connection) -> pandas.DataFrame:
    """Read every object of the database's schema.

    Returns
    -------
    DataFrame, one row per facet, sorted: kind str · identity str · definition str. The same object gives the same row in
    every session, whatever its search_path, TimeZone or DateStyle.

    Reads: the catalogs.  Writes: nothing.  Locks: none beyond ACCESS SHARE on catalogs.
    """
    return queries.frame(conn, "catalog/objects")


def diff(old: pandas.DataFrame, new: pandas.DataFrame) -> tuple[Change, ...]:
    """Every facet that is not the same in both snapshots, sorted by kind and identity."""
    before, after = facets(old), facets(new)
    changed = {key for key, _ in before.items() ^ after.items()}
    return tuple(Change(*key, before.get(key), after.get(key)) for key in sorted(changed))


def as_frame(changes: Iterable[Change]) -> pandas.DataFrame:
    """Changes as a DataFrame: kind str · identity str · before str · after str (missing where there is none)."""
    import pandas

    rows = [(change.kind, change.identity, change.before, change.after) for change in changes]
    return pandas.DataFrame(rows, columns=["kind", "identity", "before", "after"], dtype="str")


def index_state(definition: str) -> tuple[str, str]:
    """Part an index's definition from its state: ``("CREATE INDEX ...", " INVALID, ready")``; '' when it is valid.

    >>> index_state("CREATE INDEX ix ON public.t USING btree (a) INVALID, ready")
    ('CREATE INDEX ix ON public.t USING btree (a)', ' INVALID, ready')
    >>> index_state("CREATE INDEX ix ON public.t USING btree (a)")
    ('CREATE INDEX ix ON public.t USING btree (a)', '')
    """
    for state in INDEX_STATES:
        if definition.endswith(state):
            return definition.removesuffix(state), state
    return definition, ""


def facets(frame: pandas.DataFrame) -> dict[tuple[str, str], str]:
    """A snapshot as a mapping from (kind, identity) to definition."""
    kinds, identities, definitions = (frame[column].tolist() for column in COLUMNS)
    return dict(zip(zip(kinds, identities, strict=True), definitions, strict=True))

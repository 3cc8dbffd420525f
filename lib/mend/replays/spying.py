"""What a statement touched, told by the scratch database itself: event triggers, and a look at those objects alone.  SQL texts.

A snapshot around each of a history's statements would take longer than the history.  So a statement's objects are noted as it
ends, and only they are read again.  What event triggers do not tell exactly (GRANT, a rename, anything of a rarer kind) asks for a whole
snapshot.  Everything lies in a schema of mend's own, in a database that is thrown away.
"""

from __future__ import annotations

import re

from mend.database import catalog

SCHEMA = "mend_spying"
LOOK = f"select * from {SCHEMA}.look()"
_SOME = re.compile(r"/\* some (\S+) \*/")
_SAID = re.compile(r"/\* said (\S+) \*/")
_UNION = "\n  union all\n"


def snapshot_sql() -> str:
    """The whole catalog, each facet with the unit it is read with: the oid of a relation, routine or type, or 0."""
    return catalog.SNAPSHOT_SQL.replace("select o.kind, o.identity,", "select o.unit, o.kind, o.identity,")


def _some_sql() -> str:
    """The facets of the relations, routines and types in ``mend_some`` alone, by index: as quick in a large schema as in a small one."""
    head, objects = catalog.SNAPSHOT_SQL.split("), objects as materialized (\n")
    objects, tail = objects.split("\n), counted as materialized")
    kept = [
        branch for branch in objects.split(_UNION) if not re.search(r"^  select 0(?: as unit)?, ", branch, re.MULTILINE)
    ]
    text = f"{head}), objects (unit, kind, identity, definition) as materialized (\n{_UNION.join(kept)}\n), counted as materialized{tail}"
    text = re.sub(r"^  union all select 0, .*\n", "", text, flags=re.MULTILINE)
    text = _SOME.sub(r"and \1 = any (mend_some)", text)
    text = _SAID.sub(r"and \1 = any (mend_said)", text)
    text = re.sub(r"\norder by .*", "", text, flags=re.DOTALL)
    return re.sub(
        r"select o\.kind, o\.identity, o\.definition", "select o.unit, o.kind, o.identity, o.definition", text
    )


def setup() -> tuple[str, ...]:
    """The statements that make the spies, for a superuser of the scratch database."""
    return (
        f"create schema {SCHEMA}",
        f"comment on schema {SCHEMA} is 'mend: notes what statements touch'",
        _NOTE,
        _NOTE_DROPPED,
        _LOOK.replace("<some>", _some_sql()),
        f"create event trigger mend_ended on ddl_command_end execute function {SCHEMA}.note()",
        f"create event trigger mend_dropped on sql_drop execute function {SCHEMA}.note_dropped()",
    )


#: Classes whose objects are units, or belong to one that can be found; ``w`` asks for the whole.
_NOTE = f"""
create function {SCHEMA}.note() returns event_trigger language plpgsql as $note$
begin
  perform set_config('mend.touched', coalesce(current_setting('mend.touched', true), '') || (
    select coalesce(string_agg(case
      when current_query() ~* '\\m(rename|detach|attach|inherit|set\\s+schema)\\M' then 'w'
      when c.classid = 'pg_class'::regclass then 'c' || c.objid when c.classid = 'pg_proc'::regclass then 'p' || c.objid
      when c.classid = 'pg_type'::regclass then 't' || c.objid when c.classid = 'pg_constraint'::regclass then 'k' || c.objid
      when c.classid = 'pg_trigger'::regclass then 'g' || c.objid when c.classid = 'pg_rewrite'::regclass then 'r' || c.objid
      when c.classid = 'pg_policy'::regclass then 'o' || c.objid when c.classid = 'pg_attrdef'::regclass then 'd' || c.objid
      when c.classid = 'pg_statistic_ext'::regclass then 's' || c.objid else 'w' end || ' ', ''), '')
    from pg_event_trigger_ddl_commands() c) || ';', false);
end $note$"""
_NOTE_DROPPED = f"""
create function {SCHEMA}.note_dropped() returns event_trigger language plpgsql as $note$
begin
  perform set_config('mend.touched', coalesce(current_setting('mend.touched', true), '') || (
    select coalesce(string_agg(case
      when d.classid in ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_type'::regclass) and d.objsubid = 0 then 'x' || d.objid
      when d.classid in ('pg_class'::regclass, 'pg_constraint'::regclass, 'pg_trigger'::regclass, 'pg_rewrite'::regclass,
                         'pg_policy'::regclass, 'pg_attrdef'::regclass)
        then coalesce((select 'c' || r.oid from pg_catalog.pg_class r join pg_catalog.pg_namespace n on n.oid = r.relnamespace
                       where n.nspname = d.address_names[1] and r.relname = d.address_names[2]), '')
      else 'w' end, ' ') || ' ', '')
    from pg_event_trigger_dropped_objects() d where not d.is_temporary), false);
end $note$"""
_LOOK = f"""
create function {SCHEMA}.look() returns table (unit oid, kind text, identity text, definition text) language plpgsql
set plan_cache_mode = force_generic_plan set client_min_messages = error as $look$
#variable_conflict use_column
declare
  mend_touched text := coalesce(current_setting('mend.touched', true), '');
  mend_units oid[]; mend_groups text[]; mend_some oid[]; mend_said oid[];
begin
  if mend_touched = '' then return; end if;
  perform set_config('mend.touched', '', false);
  if position('w' in mend_touched) > 0 then return query select null::oid, 'w', null, null; return; end if;
  with recursive word as (
    select distinct left(w, 1) as class, cast(substr(w, 2) as oid) as oid, g.grp
    from unnest(string_to_array(mend_touched, ';')) with ordinality as g (words, grp)
      cross join lateral unnest(string_to_array(trim(g.words), ' ')) w where w <> ''
  ), found as (
    select w.oid, w.grp from word w where w.class in ('c', 'p', 't', 'x')
    union select coalesce(nullif(k.conrelid, 0), k.contypid), w.grp from word w join pg_catalog.pg_constraint k on k.oid = w.oid where w.class = 'k'
    union select g.tgrelid, w.grp from word w join pg_catalog.pg_trigger g on g.oid = w.oid where w.class = 'g'
    union select r.ev_class, w.grp from word w join pg_catalog.pg_rewrite r on r.oid = w.oid where w.class = 'r'
    union select p.polrelid, w.grp from word w join pg_catalog.pg_policy p on p.oid = w.oid where w.class = 'o'
    union select a.adrelid, w.grp from word w join pg_catalog.pg_attrdef a on a.oid = w.oid where w.class = 'd'
    union select s.stxrelid, w.grp from word w join pg_catalog.pg_statistic_ext s on s.oid = w.oid where w.class = 's'
  ), family as (
    select f.oid, f.grp from found f
    union
    select k.oid, f.grp from family f cross join lateral (
      select i.inhrelid as oid from pg_catalog.pg_inherits i where i.inhparent = f.oid
      union all select i.inhparent from pg_catalog.pg_inherits i where i.inhrelid = f.oid) k
  ), near as (
    select f.oid, f.grp from family f
    union select i.indexrelid, f.grp from family f join pg_catalog.pg_index i on i.indrelid = f.oid
    union select d.objid, f.grp from family f join pg_catalog.pg_depend d on d.refobjid = f.oid and d.refclassid = 'pg_class'::regclass
      and d.classid = d.refclassid and d.deptype in ('a', 'i') and d.refobjsubid > 0
    union select d.refobjid, f.grp from family f join pg_catalog.pg_class c on c.oid = f.oid and c.relkind = 'S'
      join pg_catalog.pg_depend d on d.objid = f.oid and d.classid = 'pg_class'::regclass
      and d.refclassid = d.classid and d.deptype in ('a', 'i') and d.refobjsubid > 0
    union select c.reltype, f.grp from family f join pg_catalog.pg_class c on c.oid = f.oid where c.relkind = 'c'
    union select t.typrelid, f.grp from family f join pg_catalog.pg_type t on t.oid = f.oid where t.typrelid <> 0
  ), unit as (
    select n.oid, max(n.grp) as grp from near n group by n.oid
  )
  select array_agg(u.oid), array_agg(cast(u.grp as text)) into mend_units, mend_groups from unit u;
  mend_some := mend_units || array(
    select i.indrelid from pg_catalog.pg_index i where i.indexrelid = any (mend_units) and i.indrelid <> all (mend_units));
  mend_said := mend_some || array(select k.oid from pg_catalog.pg_constraint k where k.conrelid = any (mend_some))
    || array(select k.oid from pg_catalog.pg_constraint k where k.contypid = any (mend_some))
    || array(select g.oid from pg_catalog.pg_trigger g where g.tgrelid = any (mend_some) and not g.tgisinternal)
    || array(select r.oid from pg_catalog.pg_rewrite r where r.ev_class = any (mend_some))
    || array(select p.oid from pg_catalog.pg_policy p where p.polrelid = any (mend_some))
    || array(select s.oid from pg_catalog.pg_statistic_ext s where s.stxrelid = any (mend_some));
  return query select s.oid, '', s.grp, '' from unnest(mend_units, mend_groups) as s (oid, grp);
  return query
<some>;
end $look$"""

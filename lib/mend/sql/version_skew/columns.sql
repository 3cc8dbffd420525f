-- Which columns do these relations have, and which of them must an INSERT give a value?
-- binds: relations text[]
-- columns: relation text, identity text, kind text, position int4, column_name text, column_identity text, type text, text bool, not_null bool, filled bool, twin bool, triggered bool
-- needs: PostgreSQL >= 13

-- Filled: PostgreSQL gives a value by itself. Twin: a trigger of mend's fills the column from another one. Triggered: some BEFORE INSERT
-- trigger of a row may fill it, and nobody can tell from the catalog.
with wanted as (
    select name, cast(to_regclass(name) as oid) as relation from unnest(cast(:relations as text[])) as name
), triggers as (
    select t.tgrelid, cast(p.proname as text) as function_name, t.tgargs, t.tgname
      from pg_trigger as t
      join pg_proc as p on p.oid = t.tgfoid
     where t.tgrelid in (select relation from wanted) and not t.tgisinternal and t.tgenabled in ('O', 'A') and t.tgtype & 7 = 7
)
select w.name                                                        as relation,
       format('%I.%I', n.nspname, c.relname)                         as identity,
       cast(c.relkind as text)                                       as kind,
       cast(a.attnum as int4)                                        as position,
       cast(a.attname as text)                                       as column_name,
       format('%I.%I.%I', n.nspname, c.relname, a.attname)           as column_identity,
       format_type(a.atttypid, a.atttypmod)                          as type,
       y.typcategory = 'S'                                           as text,
       a.attnotnull or y.typnotnull                                  as not_null,
       a.atthasdef or a.attidentity <> '' or a.attgenerated <> '' or y.typdefault is not null as filled,
       exists (select from triggers as g where g.tgrelid = c.oid and starts_with(g.function_name, 'mend_twin_')
                and strpos('00' || encode(g.tgargs, 'hex'), '00' || encode(convert_to(cast(a.attname as text), getdatabaseencoding()), 'hex') || '00') > 0) as twin,
       exists (select from triggers as g where g.tgrelid = c.oid and not starts_with(g.function_name, 'mend_twin_')) as triggered
  from wanted as w
  join pg_class as c on c.oid = w.relation
  join pg_namespace as n on n.oid = c.relnamespace
  join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  join pg_type as y on y.oid = a.atttypid
 order by w.name, a.attnum

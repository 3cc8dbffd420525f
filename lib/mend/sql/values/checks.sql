-- Which CHECK constraints and domain constraints are about these columns?
-- binds: table_name text, column_names text[]
-- columns: identity text, relation_oid oid, domain_column text, condition text
-- needs: PostgreSQL >= 13
with recursive tree as (
    select to_regclass(:table_name) as relid
     union
    select cast(i.inhrelid as regclass) from tree join pg_inherits as i on i.inhparent = tree.relid
), domains as (
    select quote_ident(a.attname) as name, t.oid, t.typbasetype
      from pg_attribute as a
      join pg_type as t on t.oid = a.atttypid
     where a.attrelid = to_regclass(:table_name) and t.typtype = 'd' and quote_ident(a.attname) = any (cast(:column_names as text[]))
     union
    select d.name, t.oid, t.typbasetype from domains as d join pg_type as t on t.oid = d.typbasetype and t.typtype = 'd'
)
select format('%I.%I.%I', n.nspname, c.relname, k.conname)             as identity,
       k.conrelid                                                      as relation_oid,
       ''                                                              as domain_column,
       pg_get_expr(k.conbin, k.conrelid)                               as condition
  from pg_constraint as k
  join pg_class as c on c.oid = k.conrelid
  join pg_namespace as n on n.oid = c.relnamespace
 where k.contype = 'c'
   and k.conrelid in (select relid from tree)
   and (k.conrelid = to_regclass(:table_name) or k.coninhcount = 0)
   and coalesce(to_jsonb(k) ->> 'conenforced', 'true') = 'true'
   and (k.conkey is null or exists (
        select from pg_attribute as a
         where a.attrelid = k.conrelid and a.attnum = any (k.conkey)
           and (quote_ident(a.attname) = any (cast(:column_names as text[])) or a.attgenerated <> '')))
 union all
select format('%I.%I', n.nspname, k.conname), cast(to_regclass(:table_name) as oid), d.name, pg_get_expr(k.conbin, 0)
  from domains as d
  join pg_constraint as k on k.contypid = d.oid and k.contype = 'c'
  join pg_namespace as n on n.oid = k.connamespace
 order by 1

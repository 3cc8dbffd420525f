-- Which constraints were never validated, so that older rows may break them?
-- binds: none
-- columns: constraint_name text, table_name text, kind text, columns text, definition text
-- needs: PostgreSQL >= 13
select cast(c.conname as text)                                        as constraint_name,
       format('%I.%I', n.nspname, coalesce(r.relname, d.typname))     as table_name,
       cast(c.contype as text)                                        as kind,
       (select string_agg(a.attname, ', ' order by k.position)
          from unnest(c.conkey) with ordinality as k (attnum, position)
          join pg_attribute as a on a.attrelid = c.conrelid and a.attnum = k.attnum) as columns,
       pg_get_constraintdef(c.oid)                                    as definition
  from pg_constraint as c
  join pg_namespace as n on n.oid = c.connamespace
  left join pg_class as r on r.oid = c.conrelid
  left join pg_type as d on d.oid = c.contypid
 where not c.convalidated
   and c.contype in ('c', 'f', 'n')
   and n.nspname not in ('pg_catalog', 'information_schema')
   and coalesce(obj_description(n.oid, 'pg_namespace'), '') not like 'mend:%'
 order by 2, 1

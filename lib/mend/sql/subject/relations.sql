-- Which tables have this name, in this schema (empty: in any), and is it the one that an unqualified name means?
-- binds: schema text, name text
-- columns: identity text, visible bool, kind text
-- needs: PostgreSQL >= 13
select format('%I.%I', n.nspname, c.relname) as identity,
       pg_table_is_visible(c.oid)            as visible,
       cast(c.relkind as text)               as kind
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
 where c.relname = cast(:name as text)
   and (cast(:schema as text) = '' or n.nspname = cast(:schema as text))
   and c.relkind in ('r', 'p', 'v', 'm', 'f')
   and n.nspname not in ('pg_catalog', 'information_schema')
   and n.nspname !~ '^pg_(toast|temp)'
   and coalesce(obj_description(n.oid, 'pg_namespace'), '') not like 'mend:%'
 order by visible desc, identity

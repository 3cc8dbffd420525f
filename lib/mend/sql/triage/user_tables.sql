-- How many tables does this database hold besides version tables?
-- binds: none
-- columns: tables int8
-- needs: PostgreSQL >= 13
select count(*)                                                       as tables
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p')
   and c.relpersistence <> 't'
   and c.relname <> 'alembic_version'
   and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
   and coalesce(obj_description(n.oid, 'pg_namespace'), '') not like 'mend:%'
   and not exists (select 1 from pg_depend as d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')

-- Which tables hold version rows, how long may an id be there, and does a key keep it from standing twice?
-- binds: configured text
-- columns: schema text, table text, owner text, width int4 (characters), has_key bool, may_change bool
-- needs: PostgreSQL >= 13
select cast(n.nspname as text)                                          as "schema",
       cast(c.relname as text)                                          as "table",
       cast(r.rolname as text)                                          as owner,
       case when a.atttypmod > 4 then a.atttypmod - 4 end               as width,
       exists (
           select
             from pg_index as i
            where i.indrelid = c.oid
              and i.indisunique
              and i.indisvalid
              and i.indpred is null
              and i.indkey[0] = a.attnum
              and i.indnkeyatts = 1
       )                                                                as has_key,
       has_table_privilege(c.oid, 'update')
           and has_table_privilege(c.oid, 'delete')
           and has_table_privilege(c.oid, 'insert')                     as may_change
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  join pg_roles as r on r.oid = c.relowner
  join pg_attribute as a on a.attrelid = c.oid and a.attname = 'version_num' and not a.attisdropped
 where c.relkind in ('r', 'p')
   and n.nspname not like 'pg\_%'
   and n.nspname <> 'information_schema'
   and coalesce(obj_description(n.oid, 'pg_namespace'), '') not like 'mend:%'
   and a.atttypid in (cast('varchar' as regtype), cast('text' as regtype))
   and (c.relname in ('alembic_version', :configured)
        or not exists (select from pg_attribute as o where o.attrelid = c.oid and o.attnum > 0 and not o.attisdropped and o.attnum <> a.attnum))
 order by 1, 2

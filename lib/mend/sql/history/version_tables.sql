-- Which tables are, or look like, an Alembic version table, in any schema?
-- binds: configured text
-- columns: schema text, table text, readable bool
-- needs: PostgreSQL >= 13
with shapes as (
    select a.attrelid,
           count(*)                                                                            as n_columns,
           bool_or(a.attname = 'version_num' and a.atttypid in (cast('varchar' as regtype), cast('text' as regtype))) as has_version_num
      from pg_attribute as a
     where a.attnum > 0
       and not a.attisdropped
     group by a.attrelid
)
select cast(n.nspname as text)                                                                 as "schema",
       cast(c.relname as text)                                                                 as "table",
       has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')           as readable
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  join shapes as s on s.attrelid = c.oid
 where c.relkind in ('r', 'p')
   and n.nspname not like 'pg\_%'
   and n.nspname <> 'information_schema'
   and coalesce(obj_description(n.oid, 'pg_namespace'), '') not like 'mend:%'
   and s.has_version_num
   and (s.n_columns = 1 or c.relname in ('alembic_version', :configured))
 order by 1, 2

-- Which indexes are invalid, and what does each do now?
-- binds: none
-- columns: index_name text, table_name text, is_ready bool, is_unique bool, is_partitioned bool, builder_pid int4, effect text
-- needs: PostgreSQL >= 13
select format('%I.%I', n.nspname, i.relname)                          as index_name,
       format('%I.%I', tn.nspname, t.relname)                         as table_name,
       x.indisready                                                   as is_ready,
       x.indisunique                                                  as is_unique,
       i.relkind = 'I'                                                as is_partitioned,
       p.pid                                                          as builder_pid,
       case
           when p.pid is not null then 'is being built now'
           when i.relkind = 'I' then 'is incomplete until an index of every partition is attached, which is normal on the way'
           when not x.indislive then 'is half dropped: a DROP INDEX CONCURRENTLY was interrupted'
           when not x.indisready then 'is not used, not maintained and enforces nothing, but its name is taken'
           when x.indisunique then 'is not used by plans, but every write maintains it and it refuses duplicates already'
           else 'is not used by plans, but every write maintains it'
       end                                                            as effect
  from pg_index as x
  join pg_class as i on i.oid = x.indexrelid
  join pg_namespace as n on n.oid = i.relnamespace
  join pg_class as t on t.oid = x.indrelid
  join pg_namespace as tn on tn.oid = t.relnamespace
  left join pg_stat_progress_create_index as p on p.index_relid = x.indexrelid
 where not x.indisvalid
   and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
   and not pg_is_other_temp_schema(n.oid)
   and coalesce(obj_description(n.oid, 'pg_namespace'), '') not like 'mend:%'
 order by 1

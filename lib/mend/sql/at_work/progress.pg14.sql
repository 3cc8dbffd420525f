-- What do the progress views say of what runs in this database?
-- binds: none
-- columns: pid int4, command text, phase text, relation text, done float8, total float8, unit text, detail text
-- needs: PostgreSQL >= 14, pg_monitor
with running as (
    select pid, datid, relid, command, phase,
           case when tuples_total > 0 then tuples_done else blocks_done end                   as done,
           case when tuples_total > 0 then tuples_total else blocks_total end                 as total,
           case when tuples_total > 0 then 'tuples' else 'blocks' end                         as unit,
           case when lockers_total > 0
                then format('waits for transaction %s of %s, now pid %s', lockers_done + 1, lockers_total, current_locker_pid) else '' end as detail
      from pg_stat_progress_create_index
     union all
    select pid, datid, relid, 'VACUUM', phase, heap_blks_scanned, heap_blks_total, 'blocks', format('%s index passes done', index_vacuum_count)
      from pg_stat_progress_vacuum
     union all
    select pid, datid, relid, command, phase,
           case when phase = 'writing new heap' then heap_tuples_written else heap_blks_scanned end,
           case when phase = 'writing new heap' then heap_tuples_scanned else heap_blks_total end,
           case when phase = 'writing new heap' then 'tuples' else 'blocks' end, ''
      from pg_stat_progress_cluster
     union all
    select pid, datid, relid, 'ANALYZE', phase, sample_blks_scanned, sample_blks_total, 'blocks', ''
      from pg_stat_progress_analyze
     union all
    select pid, datid, relid, command || ' ' || type, '', bytes_processed, bytes_total, 'bytes', format('%s rows, %s left out', tuples_processed, tuples_excluded)
      from pg_stat_progress_copy
)
select r.pid                                                        as pid,
       r.command                                                    as command,
       coalesce(r.phase, '')                                        as phase,
       coalesce(format('%I.%I', n.nspname, c.relname), '')          as relation,
       cast(r.done as float8)                                       as done,
       cast(nullif(r.total, 0) as float8)                           as total,
       r.unit                                                       as unit,
       r.detail                                                     as detail
  from running as r
  left join pg_class as c on c.oid = r.relid
  left join pg_namespace as n on n.oid = c.relnamespace
 where r.datid = (select oid from pg_database where datname = current_database())
 order by r.pid

-- Which vacuums of this table, its partitions or its TOAST table are running?
-- binds: table_name text
-- columns: pid int4, automatic bool, wraparound bool, visible bool
-- needs: PostgreSQL >= 13, pg_monitor
with tables (relid) as (
    select cast(to_regclass(cast(:table_name as text)) as oid)
     union
    select cast(relid as oid) from pg_partition_tree(to_regclass(cast(:table_name as text)))
), watched (relid) as (
    select relid from tables where relid is not null
     union
    select c.reltoastrelid from pg_class as c join tables as t on t.relid = c.oid where c.reltoastrelid <> 0
), running as (
    select p.pid, p.relid
      from pg_stat_progress_vacuum as p
     where p.datname = current_database()
)
select r.pid                                                                     as pid,
       coalesce(a.backend_type = 'autovacuum worker', false)                     as automatic,
       coalesce(a.query like '%(to prevent wraparound)%', false)                 as wraparound,
       r.relid is not null                                                       as visible
  from running as r
  left join pg_stat_activity as a on a.pid = r.pid
 where r.relid is null
    or r.relid in (select relid from watched)
 order by r.pid

-- Which sessions of others wait for these sessions of ours?
-- binds: pids int4[] (pids), min_wait_s float8 (seconds)
-- columns: pid int4, wait_s float8 (seconds), application text
-- needs: PostgreSQL >= 14

-- pg_locks shows every role all of this; pg_blocking_pids() locks the lock table for a moment and is asked last
with waiting as materialized (
    select pid, cast(extract(epoch from clock_timestamp() - min(waitstart)) as float8) as wait_s
      from pg_locks
     where not granted
       and pid <> all (cast(:pids as int4[]))
     group by pid
), long as materialized (
    select pid, wait_s from waiting where wait_s >= :min_wait_s
)
select l.pid, l.wait_s, coalesce(a.application_name, '') as application
  from long as l
  left join pg_stat_activity as a on a.pid = l.pid
 where pg_blocking_pids(l.pid) && cast(:pids as int4[])
 order by l.wait_s desc, l.pid

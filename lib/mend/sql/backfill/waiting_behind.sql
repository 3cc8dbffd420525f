-- Which sessions of others wait for these sessions of ours?
-- binds: pids int4[] (pids), min_wait_s float8 (seconds)
-- columns: pid int4, wait_s float8 (seconds), application text
-- needs: PostgreSQL >= 13

-- pg_locks.waitstart is 14 and newer, so the age of the statement stands for the length of the wait
with waiting as materialized (
    select distinct l.pid, cast(extract(epoch from clock_timestamp() - a.query_start) as float8) as wait_s, a.application_name
      from pg_locks as l
      join pg_stat_activity as a on a.pid = l.pid
     where not l.granted
       and l.pid <> all (cast(:pids as int4[]))
), long as materialized (
    select pid, wait_s, application_name from waiting where wait_s >= :min_wait_s
)
select pid, wait_s, coalesce(application_name, '') as application
  from long
 where pg_blocking_pids(pid) && cast(:pids as int4[])
 order by wait_s desc, pid

-- Which sessions wait for a table lock, an advisory lock (or, building an index, for old transactions), and behind whom?
-- binds: min_wait_s float8 (seconds)
-- columns: pid int4, wait_s float8 (seconds), lock_mode text, table_name text, blocked_by int4[] (pids), blockers text
-- needs: PostgreSQL >= 13
with waiting as (
    -- a wait for a relation lock always has DDL or LOCK TABLE at its head; waits for rows are left out.
    -- pg_locks.waitstart is 14 and newer, so the age of the statement stands for the length of the wait
    select l.pid,
           l.mode,
           l.locktype,
           l.relation,
           extract(epoch from clock_timestamp() - a.query_start) as wait_s,
           pg_blocking_pids(l.pid)                               as blocked_by
      from pg_locks as l
      join pg_stat_activity as a on a.pid = l.pid
     where not l.granted
       and l.locktype in ('relation', 'virtualxid', 'advisory')
       and (l.database = (select oid from pg_database where datname = current_database()) or l.locktype = 'virtualxid')
       and a.datname = current_database()
)
select w.pid                                                          as pid,
       cast(w.wait_s as float8)                                       as wait_s,
       w.mode                                                         as lock_mode,
       case when w.relation is null then '' else coalesce((
           select format('%I.%I', n.nspname, c.relname)
             from pg_class as c
             join pg_namespace as n on n.oid = c.relnamespace
            where c.oid = w.relation), '') end                        as table_name,
       w.blocked_by                                                   as blocked_by,
       (select string_agg(
                   case when b.pid = 0 then 'a prepared transaction'
                        else format('pid %s (%s, %s)', b.pid, coalesce(a.state, 'state not shown'), coalesce(nullif(a.application_name, ''), 'no name'))
                   end, ', ' order by b.pid)
          from (select distinct unnest(w.blocked_by)) as b (pid)
          left join pg_stat_activity as a on a.pid = b.pid)           as blockers
  from waiting as w
 where w.wait_s >= :min_wait_s
 order by w.wait_s desc

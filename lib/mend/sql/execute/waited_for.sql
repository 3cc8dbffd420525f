-- Whom does this session wait for?
-- binds: pid int4
-- columns: pid int4 (0 = a prepared transaction), state text, open_s float8 (seconds), application text, role text, kind text, query text
-- needs: PostgreSQL >= 13, pg_monitor for other roles' statements
select b.pid                                                                as pid,
       case when b.pid = 0 then 'a prepared transaction' else coalesce(a.state, '(not visible)') end as state,
       cast(extract(epoch from clock_timestamp() - a.xact_start) as float8) as open_s,
       coalesce(a.application_name, '')                                     as application,
       coalesce(cast(a.usename as text), '')                                as role,
       coalesce(a.backend_type, '')                                         as kind,
       left(coalesce(a.query, ''), 200)                                     as query
  from (select distinct unnest(pg_blocking_pids(w.pid)) as pid
          from pg_stat_activity as w
         where w.pid = :pid
           and w.wait_event_type = 'Lock') as b
  left join pg_stat_activity as a on a.pid = b.pid
 order by open_s desc nulls last, b.pid

-- Who has this pid now, and what does it still hold?
-- binds: pid int4
-- columns: pid int4, backend_start text (UTC), xact_start text (UTC), query_hash text, role text, application text, state text, locks int8, advisory_locks int8
-- needs: PostgreSQL >= 13, pg_monitor for other roles' sessions
with held as (
    select count(*) as locks, count(*) filter (where locktype = 'advisory') as advisory_locks
      from pg_locks
     where pid = cast(:pid as int4)
       and granted
)
select a.pid                                                                                          as pid,
       coalesce(to_char(a.backend_start at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US') || '+00', '') as backend_start,
       coalesce(to_char(a.xact_start at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US') || '+00', '')    as xact_start,
       coalesce(cast(hashtextextended(a.query collate "C", 0) as text), '')                           as query_hash,
       coalesce(cast(a.usename as text), '')                                                          as role,
       coalesce(a.application_name, '')                                                               as application,
       coalesce(a.state, '(not visible)')                                                             as state,
       h.locks                                                                                        as locks,
       h.advisory_locks                                                                               as advisory_locks
  from pg_stat_activity as a
 cross join held as h
 where a.pid = cast(:pid as int4)

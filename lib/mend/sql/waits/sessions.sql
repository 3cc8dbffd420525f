-- Who are these sessions, so that none of them can be taken for another one later?
-- binds: pids int4[] (pids)
-- columns: pid int4, backend_start text (UTC), xact_start text (UTC), query_hash text, role text, superuser bool, may_signal bool, application text, client text,
--   database text, here bool, backend_type text, state text, wait_event text, open_s float8 (seconds), state_s float8 (seconds), query text
-- needs: PostgreSQL >= 13, pg_monitor for other roles' sessions
select a.pid                                                                                                as pid,
       coalesce(to_char(a.backend_start at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US') || '+00', '')       as backend_start,
       coalesce(to_char(a.xact_start at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US') || '+00', '')          as xact_start,
       -- of the full text: what is shown of it is shortened, and without values
       coalesce(cast(hashtextextended(a.query collate "C", 0) as text), '')                                 as query_hash,
       coalesce(cast(a.usename as text), '')                                                                as role,
       coalesce(r.rolsuper, false)                                                                          as superuser,
       coalesce(me.rolsuper
                or (not r.rolsuper and (pg_has_role(r.oid, 'usage') or pg_has_role('pg_signal_backend', 'usage'))), false) as may_signal,
       coalesce(a.application_name, '')                                                                     as application,
       coalesce(host(a.client_addr), case when a.client_port = -1 then 'unix socket' else '' end)           as client,
       coalesce(cast(a.datname as text), '')                                                                as database,
       coalesce(a.datname = current_database(), false)                                                      as here,
       coalesce(a.backend_type, '')                                                                         as backend_type,
       coalesce(a.state, case when a.backend_start is null then '(not visible)' else '' end)                as state,
       coalesce(a.wait_event_type || ': ' || a.wait_event, '')                                              as wait_event,
       cast(extract(epoch from clock_timestamp() - a.xact_start) as float8)                                 as open_s,
       cast(extract(epoch from clock_timestamp() - a.state_change) as float8)                               as state_s,
       left(coalesce(a.query, ''), 1000)                                                                    as query
  from pg_stat_activity as a
  join pg_roles as me on me.rolname = current_user
  left join pg_roles as r on r.oid = a.usesysid
 where a.pid = any (cast(:pids as int4[]))
 order by a.pid

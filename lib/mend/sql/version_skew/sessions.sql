-- Which of the application's sessions were there before the change, and may hold plans that were made for the schema before it?
-- binds: changed_s float8 (seconds since 1970), own text
-- columns: pid int4, application text, role text, backend_start timestamptz, state text, before bool
-- needs: PostgreSQL >= 13, pg_monitor for other roles' sessions
select a.pid                                                      as pid,
       coalesce(a.application_name, '')                           as application,
       coalesce(cast(a.usename as text), '')                      as role,
       a.backend_start                                            as backend_start,
       coalesce(a.state, '(not visible)')                         as state,
       a.backend_start < to_timestamp(cast(:changed_s as float8))   as before
  from pg_stat_activity as a
 where a.datname = current_database()
   and a.pid <> pg_backend_pid()
   and a.backend_type = 'client backend'
   and not starts_with(coalesce(a.application_name, ''), cast(:own as text))
 order by a.backend_start nulls first, a.pid

-- Which sessions of this run are still alive on the server?
-- binds: prefix text
-- columns: pid int4, application text, state text, query text
-- needs: PostgreSQL >= 13
select pid, application_name as application, coalesce(state, '') as state, left(coalesce(query, ''), 200) as query
  from pg_stat_activity
 where starts_with(application_name, cast(:prefix as text))
   and pid <> pg_backend_pid()
 order by pid

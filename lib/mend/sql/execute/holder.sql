-- Who holds mend's advisory lock on this database?
-- binds: classid int4
-- columns: pid int4, application text, role text, since text
-- needs: PostgreSQL >= 13
select l.pid, coalesce(a.application_name, '') as application, coalesce(cast(a.usename as text), '') as role,
       coalesce(cast(date_trunc('second', a.backend_start at time zone 'utc') as text), '') as since
  from pg_locks as l
  left join pg_stat_activity as a on a.pid = l.pid
 where l.locktype = 'advisory'
   and l.granted
   and l.database = (select oid from pg_database where datname = current_database())
   and cast(l.classid as int8) = :classid

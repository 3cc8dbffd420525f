-- Which sessions hold a relation of this database so that not even its definition can be read?
-- binds: none
-- columns: pid int4, relation text, state text, open_s float8, application text, role text, query text
-- needs: PostgreSQL >= 13
select l.pid,
       format('%I.%I', n.nspname, c.relname)                                 as relation,
       coalesce(a.state, case when l.pid is null then 'prepared transaction' end, '(not visible)') as state,
       cast(extract(epoch from clock_timestamp() - a.xact_start) as float8)  as open_s,
       coalesce(a.application_name, '')                                      as application,
       coalesce(cast(a.usename as text), '')                                 as role,
       left(coalesce(a.query, ''), 200)                                      as query
  from pg_locks as l
  join pg_class as c on c.oid = l.relation
  join pg_namespace as n on n.oid = c.relnamespace
  left join pg_stat_activity as a on a.pid = l.pid
 where l.locktype = 'relation'
   and l.mode = 'AccessExclusiveLock'
   and l.granted
   and l.database = (select oid from pg_database where datname = current_database())
   and c.relkind in ('r', 'p', 'v', 'm', 'f')
   and n.nspname !~ '^pg_'
   and l.pid is distinct from pg_backend_pid()
 order by open_s desc nulls last, l.pid, relation

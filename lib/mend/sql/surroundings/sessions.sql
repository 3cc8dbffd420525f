-- Which sessions still run a migration, or hold what a migration would wait for?
-- binds: relations text[], own text
-- columns: pid int4, application text, role text, state text, open_s float8, holds text, waits_for text, query text
-- needs: PostgreSQL >= 13, pg_monitor for other roles' queries
with wanted as (
    select to_regclass(name) as relation from unnest(cast(:relations as text[])) as name
), held as (
    select l.pid,
           string_agg(distinct cast(l.relation as regclass) || ' ' || l.mode, ', ') filter (where l.granted) as holds,
           string_agg(distinct cast(l.relation as regclass) || ' ' || l.mode, ', ') filter (where not l.granted) as waits_for
      from pg_locks as l
      join wanted as w on w.relation = l.relation
     where l.locktype = 'relation'
       and l.database = (select oid from pg_database where datname = current_database())
     group by l.pid
)
select a.pid                                                             as pid,
       coalesce(a.application_name, '')                                  as application,
       coalesce(cast(a.usename as text), '')                             as role,
       coalesce(a.state, '(not visible)')                                as state,
       cast(extract(epoch from clock_timestamp() - a.xact_start) as float8) as open_s,
       coalesce(h.holds, '')                                             as holds,
       coalesce(h.waits_for, '')                                         as waits_for,
       left(coalesce(a.query, ''), 200)                                  as query
  from pg_stat_activity as a
  left join held as h on h.pid = a.pid
 where a.datname = current_database()
   and a.pid <> pg_backend_pid()
   and not starts_with(coalesce(a.application_name, ''), cast(:own as text))
   and a.backend_type = 'client backend'
   and (h.pid is not null
        or (a.state like 'idle in transaction%' and a.xact_start < clock_timestamp() - interval '5 seconds')
        or a.query ~* '^\s*(alter|create|drop|reindex|truncate|refresh)\s')
   and (h.pid is not null or a.state <> 'idle')
 order by open_s desc nulls last, pid

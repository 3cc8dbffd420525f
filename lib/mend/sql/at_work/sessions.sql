-- Which sessions have work under way in this database, what do they hold, and whom do they wait for?
-- binds: own text
-- columns: pid int4, backend_start timestamptz, role text, application text, client text, state text, waits_for text, xact_start timestamptz,
--   query_start timestamptz, open_s float8 (seconds), statement_s float8 (seconds), xid text, versions bool, relations text[], blocked_by int4[] (pids), query text, cut bool
-- needs: PostgreSQL >= 13, pg_monitor

-- Names come from pg_class, never from a cast to regclass or a look into the relation: a lock on it must not stop the question.
-- pg_blocking_pids() locks the lock table for a moment, so it is asked only of who waits.
with version_tables as (
    select a.attrelid as oid
      from pg_attribute as a
      join pg_class as c on c.oid = a.attrelid
     where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p')
     group by a.attrelid, c.relname
    having bool_or(a.attname = 'version_num') and (count(*) = 1 or c.relname = 'alembic_version')
), held as (
    select l.pid,
           bool_or(l.relation in (select oid from version_tables))                          as versions,
           array_agg(distinct format('%I.%I %s', n.nspname, c.relname, l.mode))
               filter (where c.relkind in ('r', 'p', 'm') and n.nspname !~ '^pg_')          as relations,
           bool_or(not l.granted)                                                           as waits
      from pg_locks as l
      left join pg_class as c on c.oid = l.relation
      left join pg_namespace as n on n.oid = c.relnamespace
     where l.database = (select oid from pg_database where datname = current_database()) or l.database is null
     group by l.pid
), xids as (
    -- seen by every role, unlike pg_stat_activity.backend_xid; the oldest one is that of the transaction itself
    select pid, cast((array_agg(transactionid order by age(transactionid) desc))[1] as text) as xid
      from pg_locks
     where locktype = 'transactionid' and granted and mode = 'ExclusiveLock'
     group by pid
)
select a.pid                                                                               as pid,
       a.backend_start                                                                     as backend_start,
       coalesce(cast(a.usename as text), '')                                               as role,
       coalesce(a.application_name, '')                                                    as application,
       coalesce(host(a.client_addr), '')                                                   as client,
       coalesce(a.state, '(not visible)')                                                  as state,
       coalesce(a.wait_event_type || ': ' || a.wait_event, '')                             as waits_for,
       a.xact_start                                                                        as xact_start,
       a.query_start                                                                       as query_start,
       cast(extract(epoch from clock_timestamp() - a.xact_start) as float8)                as open_s,
       cast(extract(epoch from clock_timestamp() - a.query_start) as float8)               as statement_s,
       coalesce(x.xid, '')                                                                 as xid,
       coalesce(h.versions, false)                                                         as versions,
       coalesce(h.relations, '{}')                                                         as relations,
       case when h.waits then pg_blocking_pids(a.pid) else '{}' end                        as blocked_by,
       coalesce(a.query, '')                                                               as query,
       -- a character that would not fit whole is left off
       coalesce(octet_length(a.query) >= s.bytes - 4, false)                               as cut
  from pg_stat_activity as a
  left join held as h on h.pid = a.pid
  left join xids as x on x.pid = a.pid
 cross join (select cast(setting as int4) as bytes from pg_settings where name = 'track_activity_query_size') as s
 where a.datname = current_database()
   and coalesce(a.backend_type, 'client backend') = 'client backend' -- NULL where the role may not see it
   and a.pid <> pg_backend_pid()
   and not starts_with(coalesce(a.application_name, ''), cast(:own as text))
   and (a.state not in ('idle', 'disabled') or h.versions or (a.state is null and (h.relations is not null or x.xid is not null)))
 order by a.xact_start nulls last, a.pid

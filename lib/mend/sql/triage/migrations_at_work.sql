-- Which sessions are in a migration: at work in a transaction that holds an Alembic version table?
-- binds: min_open_s float8 (seconds)
-- columns: pid int4, role text, open_s float8 (seconds), verb text, table_name text, waits bool
-- needs: PostgreSQL >= 13, pg_monitor for other roles' sessions

-- The first word of the statement alone: the others may be values.
with version_tables as (
    select a.attrelid as oid
      from pg_attribute as a
      join pg_class as c on c.oid = a.attrelid
     where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p')
     group by a.attrelid, c.relname
    having bool_or(a.attname = 'version_num') and (count(*) = 1 or c.relname = 'alembic_version')
), held as (
    select l.pid,
           bool_or(l.relation in (select oid from version_tables))                                          as versions,
           bool_or(not l.granted)                                                                           as waits,
           bool_or(l.locktype = 'transactionid' and l.mode = 'ExclusiveLock' and l.granted)                 as changes,
           (array_agg(format('%I.%I', n.nspname, c.relname) order by l.mode = 'AccessExclusiveLock' desc, c.relname)
               filter (where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and l.relation not in (select oid from version_tables)
                         and l.mode in ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')))[1] as table_name
      from pg_locks as l
      left join pg_class as c on c.oid = l.relation
      left join pg_namespace as n on n.oid = c.relnamespace
     where l.database = (select oid from pg_database where datname = current_database()) or l.database is null
     group by l.pid
)
select a.pid                                                                                        as pid,
       coalesce(cast(a.usename as text), '')                                                        as role,
       cast(extract(epoch from clock_timestamp() - a.xact_start) as float8)                         as open_s,
       coalesce(upper((regexp_match(a.query, '^\s*([a-zA-Z]+)'))[1]), '')                           as verb,
       coalesce(h.table_name, '')                                                                   as table_name,
       h.waits                                                                                      as waits
  from pg_stat_activity as a
  join held as h on h.pid = a.pid
 where a.datname = current_database()
   and a.pid <> pg_backend_pid()
   and not starts_with(coalesce(a.application_name, ''), 'mend:')
   and h.versions
   and (h.changes or h.table_name is not null)
   and coalesce(a.state, 'active') <> 'idle'
   and coalesce(extract(epoch from clock_timestamp() - a.xact_start) >= :min_open_s, true)
 order by open_s desc nulls last, a.pid

-- Which sessions hold or await a lock on this relation, or on the table of this index, that conflicts with the mode a step asks for?
-- binds: relation text, mode text, of_index bool
-- columns: pid int4, held text, granted bool, state text, open_s float8, application text, role text, query text
-- needs: PostgreSQL >= 13
with conflicts (asked, held) as (
    values ('AccessShareLock', '{AccessExclusiveLock}'),
           ('RowShareLock', '{ExclusiveLock,AccessExclusiveLock}'),
           ('RowExclusiveLock', '{ShareLock,ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}'),
           ('ShareUpdateExclusiveLock', '{ShareUpdateExclusiveLock,ShareLock,ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}'),
           ('ShareLock', '{RowExclusiveLock,ShareUpdateExclusiveLock,ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}'),
           ('ShareRowExclusiveLock', '{RowExclusiveLock,ShareUpdateExclusiveLock,ShareLock,ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}'),
           ('ExclusiveLock', '{RowShareLock,RowExclusiveLock,ShareUpdateExclusiveLock,ShareLock,ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}'),
           ('AccessExclusiveLock', '{AccessShareLock,RowShareLock,RowExclusiveLock,ShareUpdateExclusiveLock,ShareLock,ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}')
), named as (
    select case when cast(:of_index as bool)
                then (select cast(i.indrelid as regclass) from pg_index as i where i.indexrelid = to_regclass(cast(:relation as text)))
                else to_regclass(cast(:relation as text)) end as relation
), asked as (
    select cast(held as text[]) as held from conflicts where lower(asked) = replace(lower(cast(:mode as text)), ' ', '') || 'lock'
)
select l.pid                                                        as pid,
       l.mode                                                       as held,
       l.granted                                                    as granted,
       coalesce(a.state, case when l.pid is null then 'prepared transaction' end, '(not visible)') as state,
       cast(extract(epoch from clock_timestamp() - a.xact_start) as float8) as open_s,
       coalesce(a.application_name, '')                             as application,
       coalesce(cast(a.usename as text), '')                        as role,
       left(coalesce(a.query, ''), 200)                             as query
  from pg_locks as l
  join asked on l.mode = any (asked.held)
  left join pg_stat_activity as a on a.pid = l.pid
 where l.locktype = 'relation'
   and l.database = (select oid from pg_database where datname = current_database())
   and l.relation = (select relation from named)
   and l.pid is distinct from pg_backend_pid()
 order by l.granted desc, open_s desc nulls last, l.pid

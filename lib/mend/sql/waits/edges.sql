-- Who waits for which lock, and behind whom; by what the other holds (hard), or by having asked earlier (soft)?
-- binds: none
-- columns: pid int4, wait_s float8 (seconds), locktype text, mode text, object text, blocker int4 (0: a prepared transaction), hard bool, held text, prepared_xid text
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
), locks as materialized (
    -- a worker of a parallel query waits and holds for its leader; a prepared transaction has no pid, and is told by its number
    select l.*,
           a.datname,
           a.query_start,
           coalesce(cast(coalesce(a.leader_pid, l.pid) as text), 'prepared ' || l.virtualtransaction) as owner,
           format('%s|%s|%s|%s|%s|%s|%s|%s|%s|%s', l.locktype, l.database, l.relation, l.page, l.tuple, l.virtualxid, l.transactionid, l.classid, l.objid, l.objsubid) as tag
      from pg_locks as l
      left join pg_stat_activity as a on a.pid = l.pid
), waiting as materialized (
    select distinct on (l.owner)
           l.*,
           -- pg_locks.waitstart is 14 and newer: here the age of the statement stands for the length of the wait
           extract(epoch from clock_timestamp() - l.query_start) as waited_s
      from locks as l
     where not l.granted
       and l.pid is not null
       and l.datname = current_database()
     order by l.owner, l.query_start
), blocked as materialized (
    -- pg_blocking_pids() locks the lock table for a moment: asked once, and of those who wait alone
    select w.*, b.blocker
      from waiting as w
     cross join lateral (select distinct unnest(pg_blocking_pids(w.pid)) as blocker) as b
), held as materialized (
    select owner, tag, array_agg(distinct mode order by mode) as modes
      from locks
     where granted
     group by owner, tag
), prepared as materialized (
    select owner, cast(transactionid as text) as xid from locks where pid is null and granted and locktype = 'transactionid'
)
select cast(b.owner as int4)                                                        as pid,
       cast(coalesce(b.waited_s, 0) as float8)                                      as wait_s,
       b.locktype                                                                   as locktype,
       b.mode                                                                       as mode,
       case b.locktype
            when 'relation' then coalesce(n.name, 'relation ' || b.relation)
            when 'tuple' then 'a row of ' || coalesce(n.name, 'relation ' || b.relation)
            when 'transactionid' then coalesce('a row of ' || r.name, 'transaction ' || cast(b.transactionid as text))
            when 'virtualxid' then 'the end of transaction ' || b.virtualxid
            when 'advisory' then 'advisory lock ' || case b.objsubid
                 when 1 then cast((cast(b.classid as int8) << 32) | cast(b.objid as int8) as text)
                 else format('(%s, %s)', b.classid, b.objid) end
            else b.locktype || coalesce(' of ' || n.name, '')
       end                                                                          as object,
       b.blocker                                                                    as blocker,
       coalesce(h.modes && cast(c.held as text[]), false)                           as hard,
       coalesce(array_to_string(h.modes, ', '), '')                                 as held,
       coalesce(p.xid, '')                                                          as prepared_xid
  from blocked as b
  join conflicts as c on c.asked = b.mode
  left join held as h
    on h.tag = b.tag
   and (h.owner = cast(b.blocker as text) or (b.blocker = 0 and starts_with(h.owner, 'prepared ') and h.modes && cast(c.held as text[])))
  left join prepared as p on p.owner = h.owner
  left join lateral (
       select format('%I.%I', s.nspname, k.relname) as name
         from pg_class as k join pg_namespace as s on s.oid = k.relnamespace
        where k.oid = b.relation
          and b.database in (0, (select oid from pg_database where datname = current_database()))
  ) as n on true
  left join lateral (
       -- who waits for another transaction's row holds the right to be the next for that row
       select format('%I.%I', s.nspname, k.relname) as name
         from locks as l join pg_class as k on k.oid = l.relation join pg_namespace as s on s.oid = k.relnamespace
        where b.locktype = 'transactionid' and l.owner = b.owner and l.locktype = 'tuple' and l.granted
        limit 1
  ) as r on true
 order by wait_s desc, pid, blocker, prepared_xid

-- Which sessions hold a version table of Alembic, or an advisory lock: what tells a migrator?
-- binds: names text[]
-- columns: pid int4, version_table text, advisory text
-- needs: PostgreSQL >= 13
select l.pid                                                                                     as pid,
       coalesce(string_agg(distinct format('%I.%I', n.nspname, c.relname), ', ') filter (where c.oid is not null), '') as version_table,
       coalesce(string_agg(distinct case l.objsubid
           when 1 then cast((cast(l.classid as int8) << 32) | cast(l.objid as int8) as text)
           else format('(%s, %s)', l.classid, l.objid) end, ', ') filter (where l.locktype = 'advisory'), '')          as advisory
  from pg_locks as l
  left join pg_class as c
    on c.oid = l.relation and l.locktype = 'relation' and c.relkind in ('r', 'p')
   and (c.relname like '%alembic_version%' or c.relname = any (cast(:names as text[])))
  left join pg_namespace as n on n.oid = c.relnamespace
 where l.granted
   and l.pid is not null
   and l.database = (select oid from pg_database where datname = current_database())
   and (l.locktype = 'advisory' or c.oid is not null)
   and l.pid <> pg_backend_pid()
 group by l.pid
 order by l.pid

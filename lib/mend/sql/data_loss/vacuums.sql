-- When was a table vacuumed, is autovacuum at work on it, and is it switched off for it?
-- binds: relations text[]
-- columns: relation text, options text[], has_toast bool, toast_options text[], last_vacuum timestamptz, last_autovacuum timestamptz,
--    updated int8 (rows), deleted int8 (rows), dead int8 (rows), vacuum_pid int4, wraparound bool
-- needs: PostgreSQL >= 13, pg_monitor to see other roles' sessions
select format('%I.%I', n.nspname, c.relname) as relation,
       coalesce(c.reloptions, '{}')          as options,
       c.reltoastrelid <> 0                  as has_toast,
       coalesce(k.reloptions, '{}')          as toast_options,
       s.last_vacuum,
       s.last_autovacuum,
       s.n_tup_upd                           as updated,
       s.n_tup_del                           as deleted,
       s.n_dead_tup                          as dead,
       p.pid                                 as vacuum_pid,
       coalesce(b.query ~ 'to prevent wraparound', false) as wraparound
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  left join pg_class as k on k.oid = c.reltoastrelid
  left join pg_stat_all_tables as s on s.relid = c.oid
  left join pg_stat_progress_vacuum as p on p.relid in (c.oid, c.reltoastrelid) and p.datid = (select d.oid from pg_database as d where d.datname = current_database())
  left join pg_stat_activity as b on b.pid = p.pid
 where format('%I.%I', n.nspname, c.relname) = any(cast(:relations as text[]))
 order by relation

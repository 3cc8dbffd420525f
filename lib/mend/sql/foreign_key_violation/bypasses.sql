-- What lets rows past the checks of foreign keys on these tables?
-- binds: relations text[]
-- columns: kind text, object text, says text
-- needs: PostgreSQL >= 13
with wanted as (
    select to_regclass(name) as oid from unnest(cast(:relations as text[])) as name
), settings as (
    select case s.setdatabase when 0 then 'every database' else 'this database' end as place,
           case s.setrole when 0 then 'every role' else 'role ' || pg_get_userbyid(s.setrole) end as who,
           c.setting
      from pg_db_role_setting as s
      cross join lateral unnest(s.setconfig) as c (setting)
     where s.setdatabase in (0, (select d.oid from pg_database as d where d.datname = current_database()))
)
select 'trigger'                                                        as kind,
       format('%s on %s', case when k.conname is null then quote_ident(g.tgname) else 'trigger of key ' || quote_ident(k.conname) end,
              cast(g.tgrelid as regclass))                              as object,
       case g.tgenabled when 'D' then 'is disabled: it checks nothing'
                        else 'fires in replica sessions only: it checks nothing here' end as says
  from pg_trigger as g
  left join pg_constraint as k on k.oid = g.tgconstraint and k.contype = 'f'
 where g.tgrelid in (select oid from wanted)
   and g.tgenabled in ('D', 'R')
   and (k.oid is not null or not g.tgisinternal)
 union all
select 'setting', s.setting || ' for ' || s.who || ' in ' || s.place, 'its sessions write without any check of foreign keys'
  from settings as s
 where s.setting like 'session_replication_role=%'
   and s.setting not like '%=origin'
 union all
select 'subscription', format('%I to %s', u.subname, cast(r.srrelid as regclass)), 'rows come in by replication, which checks no foreign key'
  from pg_subscription_rel as r
  join pg_subscription as u on u.oid = r.srsubid
 where r.srrelid in (select oid from wanted)
 order by 1, 2

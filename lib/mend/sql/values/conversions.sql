-- Which types are read, written or converted by a function that is volatile?
-- binds: none
-- columns: type_oid oid, name text, says text
-- needs: PostgreSQL >= 13
with volatile as (
    select c.castsource as type_oid, p.proname from pg_cast as c join pg_proc as p on p.oid = c.castfunc where p.provolatile = 'v'
     union all
    select c.casttarget, p.proname from pg_cast as c join pg_proc as p on p.oid = c.castfunc where p.provolatile = 'v'
     union all
    select t.oid, p.proname
      from pg_type as t
      join pg_proc as p on p.oid in (t.typinput, t.typoutput, t.typmodin)
     where p.provolatile = 'v'
     union all
    select k.contypid, p.proname
      from pg_constraint as k
      join pg_depend as d on d.classid = cast('pg_constraint' as regclass) and d.objid = k.oid and d.refclassid = cast('pg_proc' as regclass)
      join pg_proc as p on p.oid = d.refobjid
     where k.contypid <> 0 and p.provolatile = 'v'
)
select t.oid                                                           as type_oid,
       cast(t.typname as text)                                         as name,
       format('type %s uses %I()', format_type(t.oid, null), v.proname) as says
  from volatile as v
  join pg_type as t on t.oid = v.type_oid or t.typelem = v.type_oid
 order by 3

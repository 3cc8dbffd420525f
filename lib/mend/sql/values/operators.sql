-- Which of these operators would call a function that is volatile?
-- binds: operator_names text[]
-- columns: name text, identity text
-- needs: PostgreSQL >= 13
select cast(o.oprname as text)                                         as name,
       format('%I.%s', n.nspname, o.oprname)                           as identity
  from pg_operator as o
  join pg_namespace as n on n.oid = o.oprnamespace
  join pg_proc as p on p.oid = o.oprcode
 where o.oprname = any (cast(:operator_names as text[]))
   and p.provolatile = 'v'
   and n.nspname = any (current_schemas(true))
 order by 1, 2

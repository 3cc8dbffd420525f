-- Which relations of this database have these numbers?
-- binds: oids int8[]
-- columns: oid int8, name text, database_oid int8
-- needs: PostgreSQL >= 13
select cast(c.oid as int8)                     as oid,
       format('%I.%I', n.nspname, c.relname)   as name,
       cast(d.oid as int8)                     as database_oid
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  join pg_database as d on d.datname = current_database()
 where cast(c.oid as int8) = any (cast(:oids as int8[]))
 order by c.oid

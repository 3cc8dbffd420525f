-- What stands in pg_attribute for these tables, row by row?
-- binds: relations text[]
-- columns: relation text, attnum int4, xid text, content text (md5)
-- needs: PostgreSQL >= 13
select format('%I.%I', n.nspname, c.relname) as relation,
       cast(a.attnum as int4)                as attnum,
       cast(a.xmin as text)                  as xid,
       md5(cast(a as text))                  as content
  from pg_attribute as a
  join pg_class as c on c.oid = a.attrelid
  join pg_namespace as n on n.oid = c.relnamespace
 where format('%I.%I', n.nspname, c.relname) = any(cast(:relations as text[]))
 order by relation, attnum

-- Which columns has a table of mend's own schema?
-- binds: schema text, name text
-- columns: column_name text, type text
-- needs: PostgreSQL >= 13
select quote_ident(a.attname)                    as column_name,
       format_type(a.atttypid, a.atttypmod)      as type
  from pg_attribute as a
  join pg_class as c on c.oid = a.attrelid
  join pg_namespace as n on n.oid = c.relnamespace
 where n.nspname = cast(:schema as text)
   and c.relname = cast(:name as text)
   and a.attnum > 0
   and not a.attisdropped
 order by a.attnum

-- Which tables lie in mend's own schema, how large are they, and what do their comments say?
-- binds: schema text
-- columns: name text, says text, rows_estimate int8 (rows), size_bytes int8 (bytes), owner text, grantees text
-- needs: PostgreSQL >= 13
select cast(c.relname as text)                                                                     as name,
       coalesce(obj_description(c.oid, 'pg_class'), '')                                            as says,
       cast(case when c.reltuples >= 0 then c.reltuples else c.relpages * 100 end as int8)         as rows_estimate,
       pg_table_size(c.oid)                                                                        as size_bytes,
       cast(pg_get_userbyid(c.relowner) as text)                                                   as owner,
       coalesce((select string_agg(case a.grantee when 0 then 'public' else cast(pg_get_userbyid(a.grantee) as text) end, ', ')
                   from aclexplode(c.relacl) as a where a.grantee <> c.relowner), '')              as grantees
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
 where n.nspname = cast(:schema as text)
   and c.relkind = 'r'
   and coalesce(obj_description(n.oid, 'pg_namespace'), '') like 'mend:%'
 order by c.relname

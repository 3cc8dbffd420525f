-- How large are these tables, by the server's own statistics?
-- binds: relations text[]
-- columns: relation text, rows_estimate int8 (rows), size_bytes int8 (bytes)
-- needs: PostgreSQL >= 13
select name                                                                      as relation,
       cast(case when c.reltuples >= 0 then c.reltuples else c.relpages * 100 end as int8) as rows_estimate,
       pg_table_size(c.oid)                                                      as size_bytes
  from unnest(cast(:relations as text[])) as name
  join pg_class as c on c.oid = to_regclass(name)
 order by name

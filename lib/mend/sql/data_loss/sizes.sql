-- How large are these tables with their partitions and children, and how many rows do they hold by the server's own statistics?
-- binds: relations text[]
-- columns: relation text, rows_estimate int8 (rows), size_bytes int8 (bytes), relation_oid oid
-- needs: PostgreSQL >= 13
with recursive tree as (
    select name, cast(to_regclass(name) as oid) as root, cast(to_regclass(name) as oid) as relid
      from unnest(cast(:relations as text[])) as name
     where to_regclass(name) is not null
     union
    select tree.name, tree.root, i.inhrelid from tree join pg_inherits as i on i.inhparent = tree.relid
)
select name                                                                                      as relation,
       cast(sum(case when c.relkind = 'p' then 0 when c.reltuples >= 0 then c.reltuples else c.relpages * 100 end) as int8) as rows_estimate,
       cast(sum(pg_table_size(c.oid)) as int8)                                                   as size_bytes,
       min(root)                                                                                 as relation_oid
  from tree
  join pg_class as c on c.oid = tree.relid
 group by name
 order by name

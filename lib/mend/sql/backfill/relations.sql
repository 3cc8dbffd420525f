-- Which relations hold the rows of a table, how large are they, and how many rows does a page hold?
-- binds: table_name text
-- columns: relation text, kind text, blocks int8 (pages), rows_per_block float8 (rows)
-- needs: PostgreSQL >= 13
with named as (
  select cast(cast(:table_name as text) as regclass) as oid
), held as (
  select c.oid, c.relkind, c.relname, n.nspname, c.reltuples, c.relpages
    from named
   cross join lateral (
     select named.oid as relid
      where not exists (select from pg_partition_tree(named.oid))
     union all
     select p.relid from pg_partition_tree(named.oid) as p where p.isleaf
   ) as part
    join pg_class as c on c.oid = part.relid
    join pg_namespace as n on n.oid = c.relnamespace
)
select format('%I.%I', nspname, relname) as relation, cast(relkind as text) as kind,
       pg_relation_size(oid) / cast(current_setting('block_size') as int8) as blocks,
       case when relpages > 0 and reltuples > 0 then reltuples / relpages else 0 end as rows_per_block
  from held
 order by oid

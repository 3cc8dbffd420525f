-- Which tables hold this table's rows, and how are its rows told apart?
-- binds: table_name text
-- columns: relation_oid oid, relation text, kind text, pages int8, inherits bool, keys text[], partition_columns text[]
-- needs: PostgreSQL >= 13
with recursive tree as (
    select to_regclass(:table_name) as relid
     union
    select cast(i.inhrelid as regclass) from tree join pg_inherits as i on i.inhparent = tree.relid
)
select c.oid                                                           as relation_oid,
       format('%I.%I', n.nspname, c.relname)                           as relation,
       cast(c.relkind as text)                                         as kind,
       case when c.relkind in ('r', 'm') then pg_relation_size(c.oid) / cast(current_setting('block_size') as int8) else 0 end as pages,
       c.oid <> to_regclass(:table_name) and not c.relispartition      as inherits,
       array(select quote_ident(a.attname)
               from pg_index as x
               cross join unnest(cast(x.indkey as int2[])) with ordinality as k (attnum, position)
               join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
              where x.indrelid = c.oid and x.indisprimary and k.position <= x.indnkeyatts
              order by k.position)                                     as keys,
       array(select quote_ident(a.attname)
               from pg_partitioned_table as p
               join pg_attribute as a on a.attrelid = p.partrelid and a.attnum = any (cast(p.partattrs as int2[]))
              where p.partrelid = c.oid)                               as partition_columns
  from tree
  join pg_class as c on c.oid = tree.relid
  join pg_namespace as n on n.oid = c.relnamespace
 order by c.oid <> to_regclass(:table_name), 2

-- What does the key join, how large is it, and what may this role do there?
-- binds: child text, parent text
-- columns: relation text, part text, kind text, rows_estimate int8 (rows), size_bytes int8 (bytes), owner text, lacks text
-- needs: PostgreSQL >= 13
with wanted as (
    select to_regclass(:child) as oid, 'refers' as part
     union all
    select to_regclass(:parent), 'is referred to' where to_regclass(:parent) is distinct from to_regclass(:child)
), leaves as (
    select w.oid as root, t.relid
      from wanted as w
      join pg_class as c on c.oid = w.oid
      cross join lateral (
            select p.relid from pg_partition_tree(w.oid) as p where p.isleaf
             union
            select w.oid where c.relkind <> 'p') as t (relid)
)
select format('%I.%I', n.nspname, c.relname)                            as relation,
       w.part                                                           as part,
       case when c.relkind = 'p' then 'partitioned, ' || (select count(*) from leaves as l where l.root = w.oid) || ' partitions'
            when c.relispartition then 'a partition of ' || cast((select i.inhparent from pg_inherits as i where i.inhrelid = c.oid) as regclass)
            else 'table' end                                            as kind,
       (select cast(sum(greatest(p.reltuples, 0)) as int8) from leaves as l join pg_class as p on p.oid = l.relid where l.root = w.oid) as rows_estimate,
       (select cast(sum(pg_total_relation_size(l.relid)) as int8) from leaves as l where l.root = w.oid) as size_bytes,
       cast(pg_get_userbyid(c.relowner) as text)                        as owner,
       concat_ws(', ',
           case when w.part = 'refers' and not pg_has_role(c.relowner, 'usage') then 'ownership' end,
           case when w.part = 'is referred to' and not has_table_privilege(c.oid, 'references')
                 and not has_any_column_privilege(c.oid, 'references') then 'REFERENCES' end,
           case when not has_table_privilege(c.oid, 'select') then 'SELECT' end) as lacks
  from wanted as w
  join pg_class as c on c.oid = w.oid
  join pg_namespace as n on n.oid = c.relnamespace
 order by w.part = 'refers' desc

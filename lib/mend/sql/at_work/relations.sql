-- How large are these tables by the catalog's own account, which no lock keeps from being read?
-- binds: relations text[]
-- columns: relation text, kind text, rows_estimate float8 (rows), blocks int8 (pages), toast_blocks int8 (pages), indexes int4, path text
-- needs: PostgreSQL >= 13

-- reltuples and relpages are as of the last VACUUM or ANALYZE; pg_relation_size() would wait for an ACCESS EXCLUSIVE lock
select format('%I.%I', n.nspname, c.relname)                                               as relation,
       cast(c.relkind as text)                                                             as kind,
       cast(case when c.relkind = 'p' then coalesce(leaves.rows_estimate, 0) else greatest(c.reltuples, 0) end as float8) as rows_estimate,
       cast(case when c.relkind = 'p' then coalesce(leaves.blocks, 0) else c.relpages end as int8) as blocks,
       cast(coalesce(t.relpages, 0) as int8)                                               as toast_blocks,
       (select cast(count(*) as int4) from pg_index as i where i.indrelid = c.oid)         as indexes,
       case when c.relfilenode = 0 then ''
            when c.reltablespace = 0 and d.dattablespace = 1663 then format('base/%s/%s', d.oid, c.relfilenode)
            else '' end                                                                    as path
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  join pg_database as d on d.datname = current_database()
  left join pg_class as t on t.oid = c.reltoastrelid
  left join lateral (
      select sum(greatest(l.reltuples, 0)) as rows_estimate, sum(l.relpages) as blocks
        from pg_inherits as i
        join pg_class as l on l.oid = i.inhrelid
       where i.inhparent = c.oid) as leaves on true
 where format('%I.%I', n.nspname, c.relname) = any (cast(:relations as text[]))
    or (n.nspname = any (current_schemas(false)) and format('%I', c.relname) = any (cast(:relations as text[])))
 order by 1

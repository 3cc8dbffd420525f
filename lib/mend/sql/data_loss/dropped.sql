-- Which dropped columns may have values on disk still, and what has the catalog kept of each?
-- binds: table_name text
-- columns: relation text, root text, kind text, attnum int4, length int4 (bytes), align text, by_value bool, storage text,
--    collated bool, modifier int4, dimensions int4, dropped_xid text, dropped_age int4 (transactions), rewritten bool,
--    rows_estimate float8 (rows), size_bytes int8 (bytes), columns text[]
-- needs: PostgreSQL >= 13

-- An empty name takes every table. A partition's columns stand with its root, though their numbers may differ.
-- `rewritten` is false where the catalog proves that the table as a whole was not written anew since; where it is true, that may be.
with dropped as (
    select a.attrelid, a.attnum, a.attlen, a.attalign, a.attbyval, a.attstorage, a.attcollation, a.atttypmod, a.attndims,
           a.xmin, age(a.xmin) as age
      from pg_attribute as a
     where a.attnum > 0 and a.attisdropped
), tables as (
    select c.oid, c.relkind, c.reltuples, c.relfilenode, age(c.xmin) as age, coalesce(pg_partition_root(c.oid), c.oid) as root,
           format('%I.%I', n.nspname, c.relname) as name
      from pg_class as c
      join pg_namespace as n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p')
       and c.relpersistence <> 't'
       and n.nspname not in ('pg_catalog', 'information_schema')
       and n.nspname !~ '^pg_(toast|temp)'
       and coalesce(obj_description(n.oid, 'pg_namespace'), '') not like 'mend:%'
)
select t.name                                                    as relation,
       r.name                                                    as root,
       cast(t.relkind as text)                                   as kind,
       cast(d.attnum as int4)                                    as attnum,
       cast(d.attlen as int4)                                    as length,
       cast(d.attalign as text)                                  as align,
       d.attbyval                                                as by_value,
       cast(d.attstorage as text)                                as storage,
       d.attcollation <> 0                                       as collated,
       d.atttypmod                                               as modifier,
       cast(d.attndims as int4)                                  as dimensions,
       cast(d.xmin as text)                                      as dropped_xid,
       d.age                                                     as dropped_age,
       t.relfilenode <> t.oid and t.age <= d.age                 as rewritten,
       cast(greatest(t.reltuples, 0) as float8)                  as rows_estimate,
       pg_table_size(t.oid)                                      as size_bytes,
       (select array_agg(case when not a.attisdropped then quote_ident(a.attname) end order by a.attnum)
          from pg_attribute as a where a.attrelid = t.oid and a.attnum > 0) as columns
  from dropped as d
  join tables as t on t.oid = d.attrelid
  join tables as r on r.oid = t.root
 where cast(:table_name as text) = '' or r.name = cast(:table_name as text) or t.name = cast(:table_name as text)
 order by root, relation, attnum

-- What is a type in the catalog, and is it still as it was when a column was dropped?
-- binds: type_name text, modifier int4
-- columns: type text, printed text, kind text, length int4 (bytes), align text, by_value bool, storage text, collated bool,
--    array bool, own bool, youngest_age int4 (transactions), parts text[]
-- needs: PostgreSQL >= 13

-- `youngest_age`: of the newest of all catalog rows that say what its values mean: its own, of what it is made of, its labels and fields.
with recursive made_of as (
    select to_regtype(cast(:type_name as text)) as oid
    union
    select part.oid
      from made_of as m
      join pg_type as t on t.oid = m.oid
      cross join lateral (
        select t.typelem as oid where t.typelem <> 0 and t.typlen = -1
        union all select t.typbasetype where t.typbasetype <> 0
        union all select r.rngsubtype from pg_range as r where r.rngtypid = t.oid
        union all select a.atttypid from pg_attribute as a
                   where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped) as part
), ages as (
    select age(t.xmin) as age from pg_type as t join made_of as m on m.oid = t.oid
    union all select age(e.xmin) from pg_enum as e join made_of as m on m.oid = e.enumtypid
    union all select age(r.xmin) from pg_range as r join made_of as m on m.oid = r.rngtypid
    union all select age(a.xmin) from pg_type as t join made_of as m on m.oid = t.oid
                join pg_attribute as a on a.attrelid = t.typrelid and a.attnum > 0 where t.typtype = 'c'
)
select cast(t.oid as text)                                                   as type,
       format_type(t.oid, cast(:modifier as int4))                           as printed,
       cast(t.typtype as text)                                               as kind,
       cast(t.typlen as int4)                                                as length,
       cast(t.typalign as text)                                              as align,
       t.typbyval                                                            as by_value,
       cast(t.typstorage as text)                                            as storage,
       t.typcollation <> 0                                                   as collated,
       t.typelem <> 0 and t.typlen = -1                                      as array,
       n.nspname not in ('pg_catalog', 'information_schema')                 as own,
       (select min(a.age) from ages as a)                                    as youngest_age,
       (select array_agg(format_type(m.oid, null)) from made_of as m)        as parts
  from pg_type as t
  join pg_namespace as n on n.oid = t.typnamespace
 where t.oid = to_regtype(cast(:type_name as text))

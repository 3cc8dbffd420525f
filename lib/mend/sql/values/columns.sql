-- Which columns has this table, and what can be assigned to each?
-- binds: table_name text
-- columns: name text, type text, base_type text, raw_type text, base text, element text, typmod int4, type_oid oid, not_null bool,
--   generated text, generation text, has_default bool, identity text
-- needs: PostgreSQL >= 13
with recursive bases as (
    select a.attnum, t.oid, t.typbasetype, a.atttypmod as typmod, t.typnotnull
      from pg_attribute as a
      join pg_type as t on t.oid = a.atttypid
     where a.attrelid = to_regclass(:table_name) and a.attnum > 0 and not a.attisdropped
     union all
    select b.attnum, t.oid, t.typbasetype, case when b.typmod < 0 then d.typtypmod else b.typmod end, t.typnotnull
      from bases as b
      join pg_type as d on d.oid = b.oid
      join pg_type as t on t.oid = b.typbasetype
     where b.typbasetype <> 0
)
select quote_ident(a.attname)                                          as name,
       format_type(a.atttypid, a.atttypmod)                            as type,
       format_type(b.oid, b.typmod)                                    as base_type,
       format_type(b.oid, -1)                                          as raw_type,
       cast(t.typname as text)                                         as base,
       coalesce(cast(e.typname as text), '')                           as element,
       b.typmod                                                        as typmod,
       a.atttypid                                                      as type_oid,
       a.attnotnull or exists (select from bases as d where d.attnum = a.attnum and d.typnotnull) as not_null,
       cast(a.attgenerated as text)                                    as generated,
       case when a.attgenerated <> '' then pg_get_expr(f.adbin, f.adrelid) else '' end as generation,
       a.atthasdef or a.attidentity <> ''                              as has_default,
       cast(a.attidentity as text)                                     as identity
  from pg_attribute as a
  join bases as b on b.attnum = a.attnum and b.typbasetype = 0
  join pg_type as t on t.oid = b.oid
  left join pg_type as e on e.oid = t.typelem and t.typcategory = 'A'
  left join pg_attrdef as f on f.adrelid = a.attrelid and f.adnum = a.attnum
 where a.attrelid = to_regclass(:table_name) and a.attnum > 0 and not a.attisdropped
 order by a.attnum

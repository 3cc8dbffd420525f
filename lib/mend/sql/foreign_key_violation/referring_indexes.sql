-- Which indexes of the referring table begin with these columns, and do lookups by the key use them?
-- binds: relation text, attributes text[]
-- columns: index_name text, serves bool, why_not text, definition text
-- needs: PostgreSQL >= 13
with wanted as (
    select array_agg(name order by name) as names, cast(count(*) as int4) as many from unnest(cast(:attributes as text[])) as name
), indexes as (
    select i.*, n.nspname, c.relname, m.amname, pg_get_expr(i.indpred, i.indrelid) as predicate,
           (select array_agg(quote_ident(a.attname) order by quote_ident(a.attname))
              from unnest(i.indkey) with ordinality as k (attnum, position)
              join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum
             where k.position <= w.many)                               as leads
      from pg_index as i
      join pg_class as c on c.oid = i.indexrelid
      join pg_namespace as n on n.oid = c.relnamespace
      join pg_am as m on m.oid = c.relam
      cross join wanted as w
     where i.indrelid = to_regclass(:relation)
)
select format('%I.%I', i.nspname, i.relname)                            as index_name,
       i.indisvalid and i.amname in ('btree', 'hash')
         and coalesce(i.predicate in (select format('(%s IS NOT NULL)', name) from unnest(w.names) as name), true) as serves,
       concat_ws(', ',
           case when not i.indisvalid then 'it is INVALID' end,
           case when i.amname not in ('btree', 'hash') then 'it is a ' || i.amname || ' index' end,
           case when i.predicate not in (select format('(%s IS NOT NULL)', name) from unnest(w.names) as name)
                then 'it holds only rows where ' || i.predicate end)    as why_not,
       pg_get_indexdef(i.indexrelid)                                    as definition
  from indexes as i
  cross join wanted as w
 where i.leads = w.names
 order by serves desc, index_name

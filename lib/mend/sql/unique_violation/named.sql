-- How does PostgreSQL write this name, and which unique constraint or index has it, on which table and columns?
-- binds: name text
-- columns: quoted text, relation text, columns text
-- needs: PostgreSQL >= 13
with known as (
    select format('%I.%I', n.nspname, c.relname)                                   as relation,
           string_agg(pg_get_indexdef(x.indexrelid, cast(p as int4), false), ', ' order by p) as columns
      from pg_index as x
      join pg_class as i on i.oid = x.indexrelid
      join pg_class as c on c.oid = x.indrelid
      join pg_namespace as n on n.oid = c.relnamespace
     cross join lateral generate_series(1, x.indnkeyatts) as p
     where x.indisunique
       and i.relname = cast(:name as text)
       and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
       and coalesce(obj_description(n.oid, 'pg_namespace'), '') not like 'mend:%'
     group by x.indexrelid, n.nspname, c.relname
)
select quote_ident(cast(:name as text))                                            as quoted,
       k.relation                                                                  as relation,
       k.columns                                                                   as columns
  from (select) as one
  left join known as k on true
 order by 2

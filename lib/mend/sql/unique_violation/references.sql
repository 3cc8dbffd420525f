-- Which foreign keys point at this table, and on which columns?
-- binds: relation text
-- columns: identity text, child text, columns text[], referenced text[], on_delete text, computed bool
-- needs: PostgreSQL >= 13
select format('%I.%I.%I', n.nspname, c.relname, k.conname)                         as identity,
       format('%I.%I', n.nspname, c.relname)                                       as child,
       array_agg(quote_ident(a.attname) order by p.ordinality)                     as columns,
       array_agg(quote_ident(r.attname) order by p.ordinality)                     as referenced,
       case k.confdeltype when 'a' then 'no action' when 'r' then 'restrict' when 'c' then 'cascade'
                          when 'n' then 'set null' else 'set default' end          as on_delete,
       bool_or(a.attgenerated <> '' or a.attidentity = 'a')                        as computed
  from pg_constraint as k
  join pg_class as c on c.oid = k.conrelid
  join pg_namespace as n on n.oid = c.relnamespace
  cross join lateral unnest(k.conkey, k.confkey) with ordinality as p (own, other, ordinality)
  join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = p.own
  join pg_attribute as r on r.attrelid = k.confrelid and r.attnum = p.other
 where k.contype = 'f'
   and k.conparentid = 0
   and k.confrelid = to_regclass(cast(:relation as text))
 group by k.oid, n.nspname, c.relname, k.conname, k.confdeltype
 order by 1

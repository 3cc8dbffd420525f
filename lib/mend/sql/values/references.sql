-- Which foreign keys go from these columns, or come to them?
-- binds: table_name text, column_names text[]
-- columns: identity text, relation_oid oid, outgoing bool, columns text[], other text, other_columns text[], operators text[], match text, on_update text
-- needs: PostgreSQL >= 13

-- a key to a partitioned table has a twin for each partition: a row has its parent in one of them, not in all
with recursive tree as (
    select to_regclass(:table_name) as relid
     union
    select cast(i.inhrelid as regclass) from tree join pg_inherits as i on i.inhparent = tree.relid
), found as (
    select k.oid, k.conname, k.conrelid as own, k.confrelid as other, true as outgoing, k.conkey as own_key, k.confkey as other_key,
           k.conpfeqop, k.confmatchtype, k.confupdtype
      from pg_constraint as k
      left join pg_constraint as p on p.oid = k.conparentid
     where k.contype = 'f' and k.conrelid in (select relid from tree)
       and (k.conparentid = 0 or k.conrelid = to_regclass(:table_name) and p.conrelid <> k.conrelid)
       and coalesce(to_jsonb(k) ->> 'conenforced', 'true') = 'true'
     union all
    select k.oid, k.conname, k.confrelid, k.conrelid, false, k.confkey, k.conkey, k.conpfeqop, k.confmatchtype, k.confupdtype
      from pg_constraint as k
      left join pg_constraint as p on p.oid = k.conparentid
     where k.contype = 'f' and k.confrelid in (select relid from tree)
       and (k.conparentid = 0 or k.confrelid = to_regclass(:table_name) and p.confrelid <> k.confrelid)
       and coalesce(to_jsonb(k) ->> 'conenforced', 'true') = 'true'
)
select format('%I.%I.%I', case when f.outgoing then n.nspname else m.nspname end,
              case when f.outgoing then c.relname else o.relname end, f.conname) as identity,
       f.own                                                           as relation_oid,
       f.outgoing                                                      as outgoing,
       array(select quote_ident(a.attname) from unnest(f.own_key) with ordinality as k (attnum, position)
               join pg_attribute as a on a.attrelid = f.own and a.attnum = k.attnum order by k.position) as columns,
       format('%I.%I', m.nspname, o.relname)                           as other,
       array(select quote_ident(a.attname) from unnest(f.other_key) with ordinality as k (attnum, position)
               join pg_attribute as a on a.attrelid = f.other and a.attnum = k.attnum order by k.position) as other_columns,
       array(select format('operator(%I.%s)', pn.nspname, p.oprname) from unnest(f.conpfeqop) with ordinality as k (opr, position)
               join pg_operator as p on p.oid = k.opr join pg_namespace as pn on pn.oid = p.oprnamespace order by k.position) as operators,
       cast(f.confmatchtype as text)                                   as match,
       cast(f.confupdtype as text)                                     as on_update
  from found as f
  join pg_class as c on c.oid = f.own
  join pg_namespace as n on n.oid = c.relnamespace
  join pg_class as o on o.oid = f.other
  join pg_namespace as m on m.oid = o.relnamespace
 where exists (select from unnest(f.own_key) as k
                 join pg_attribute as a on a.attrelid = f.own and a.attnum = k
                where quote_ident(a.attname) = any (cast(:column_names as text[])))
 order by 1

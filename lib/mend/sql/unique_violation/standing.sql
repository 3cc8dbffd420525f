-- Which unique indexes of this table are there, is each valid, and what does it do now?
-- binds: relation text
-- columns: identity text, constraint_name text, definition text, is_valid bool, is_ready bool, effect text, collations_moved text
-- needs: PostgreSQL >= 13
select format('%I.%I', n.nspname, i.relname)                                       as identity,
       coalesce(cast(k.conname as text), '')                                       as constraint_name,
       pg_get_indexdef(x.indexrelid)                                               as definition,
       x.indisvalid                                                                as is_valid,
       x.indisready                                                                as is_ready,
       case when not x.indislive then 'is being dropped'
            when x.indisvalid then 'refuses duplicates, and queries rely on it'
            when i.relkind = 'I' then 'is incomplete until an index of every partition is attached'
            when x.indisready then 'no query uses it, but every write maintains it and duplicates are refused (23505)'
            else 'not used, not maintained, not enforced; it only takes the name' end as effect,
       coalesce((select string_agg(distinct quote_ident(c.collname), ', ')
                   from unnest(x.indcollation) as u (oid)
                   join pg_collation as c on c.oid = u.oid
                  where c.collversion <> pg_collation_actual_version(c.oid)), '') as collations_moved
  from pg_index as x
  join pg_class as i on i.oid = x.indexrelid
  join pg_namespace as n on n.oid = i.relnamespace
  left join pg_constraint as k on k.conindid = x.indexrelid and k.conrelid = x.indrelid and k.contype in ('p', 'u')
 where x.indrelid = to_regclass(cast(:relation as text))
   and x.indisunique
 order by 1

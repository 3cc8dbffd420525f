-- Which constraints of this table say already that a column has a value?
-- binds: relation text, attribute text
-- columns: constraint_name text, definition text, validated bool, kind text
-- needs: PostgreSQL >= 13
select quote_ident(k.conname)     as constraint_name,
       pg_get_constraintdef(k.oid) as definition,
       k.convalidated             as validated,
       case k.contype when 'n' then 'NOT NULL' else 'CHECK' end as kind
  from pg_constraint as k
  join pg_attribute as a on a.attrelid = k.conrelid and a.attname = cast(:attribute as text)
 where k.conrelid = to_regclass(cast(:relation as text))
   and k.conkey = array[a.attnum]
   and (k.contype = 'n' or (k.contype = 'c' and pg_get_constraintdef(k.oid) ~* 'IS NOT NULL\)\)'))
 order by k.contype desc, k.conname

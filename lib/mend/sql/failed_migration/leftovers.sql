-- What do failed or unfinished migrations leave behind in this database?
-- binds: none
-- columns: kind text, identity text, relation text, state text, effect text, size_bytes int8
-- needs: PostgreSQL >= 13
with ours as (
    select n.oid
      from pg_namespace as n
     where n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
       and not starts_with(n.nspname, 'pg_temp_')
       and not starts_with(n.nspname, 'pg_toast_temp_')
       and not starts_with(coalesce(obj_description(n.oid, 'pg_namespace'), ''), 'mend:')
), indexes as (
    select c.oid, n.nspname, c.relname, format('%I.%I', tn.nspname, t.relname) as relation, i.indisvalid, i.indisready, i.indisunique, i.indislive, c.relkind
      from pg_index as i
      join pg_class as c on c.oid = i.indexrelid
      join pg_namespace as n on n.oid = c.relnamespace
      join pg_class as t on t.oid = i.indrelid
      join pg_namespace as tn on tn.oid = t.relnamespace
     where n.oid in (select oid from ours)
       and not i.indisvalid
       and c.relkind = 'i'
)
select 'invalid index'                                                  as kind,
       format('%I.%I', nspname, relname)                                as identity,
       relation                                                         as relation,
       case when not indislive then 'being dropped'
            when indisready then 'INVALID, ready' else 'INVALID, not ready' end as state,
       case when not indislive then 'nothing uses it'
            when indisready and indisunique then 'not used by queries, but every write maintains it and duplicates are refused (23505)'
            when indisready then 'not used by queries, but every write maintains it'
            else 'not used, not maintained, not enforced; it only takes the name' end
       || case when relname ~ '_ccnew[0-9]*$' then '; left by REINDEX CONCURRENTLY, drop it'
               when relname ~ '_ccold[0-9]*$' then '; the old index of a REINDEX CONCURRENTLY, drop it'
               else '' end                                              as effect,
       cast(pg_relation_size(oid) as int8)                              as size_bytes
  from indexes
 union all
select case k.contype when 'f' then 'foreign key not validated' when 'n' then 'not null not validated' else 'check not validated' end,
       format('%I.%I.%I', tn.nspname, t.relname, k.conname),
       format('%I.%I', tn.nspname, t.relname),
       'NOT VALID',
       'new and changed rows are checked, the rows that were there before are not',
       null
  from pg_constraint as k
  join pg_class as t on t.oid = k.conrelid
  join pg_namespace as tn on tn.oid = t.relnamespace
 where not k.convalidated
   and k.connamespace in (select oid from ours)
   and k.contype in ('f', 'c', 'n')
 union all
select 'prepared transaction', p.gid, '', 'prepared ' || cast(date_trunc('second', p.prepared at time zone 'utc') as text),
       'holds its locks until somebody commits or rolls it back', null
  from pg_prepared_xacts as p
 where p.database = current_database()
 order by 1, 2

-- Which sequences fill columns of this table (empty: of any table), and what is the next value of each?
-- binds: relation text
-- columns: relation text, column_name text, sequence text, next_value int8, step int8, is_known bool, is_indexed bool
-- needs: PostgreSQL >= 13
with fed as (
    select d.refobjid as relid, d.refobjsubid as attnum, d.objid as seqrelid
      from pg_depend as d
     where d.classid = cast('pg_class' as regclass)
       and d.refclassid = cast('pg_class' as regclass)
       and d.deptype = 'i'
     union
    select f.adrelid, f.adnum, d.refobjid
      from pg_depend as d
      join pg_attrdef as f on f.oid = d.objid
     where d.classid = cast('pg_attrdef' as regclass)
       and d.refclassid = cast('pg_class' as regclass)
)
select format('%I.%I', n.nspname, c.relname)                                       as relation,
       quote_ident(a.attname)                                                      as column_name,
       format('%I.%I', sn.nspname, s.relname)                                      as sequence,
       case when has_sequence_privilege(s.oid, 'select')
            then coalesce(pg_sequence_last_value(s.oid) + q.seqincrement, q.seqstart) end as next_value,
       q.seqincrement                                                              as step,
       has_sequence_privilege(s.oid, 'select')                                     as is_known,
       exists (select from pg_index as x where x.indrelid = c.oid and x.indisvalid and x.indkey[0] = a.attnum and x.indpred is null) as is_indexed
  from fed
  join pg_sequence as q on q.seqrelid = fed.seqrelid
  join pg_class as s on s.oid = q.seqrelid
  join pg_namespace as sn on sn.oid = s.relnamespace
  join pg_class as c on c.oid = fed.relid
  join pg_namespace as n on n.oid = c.relnamespace
  join pg_attribute as a on a.attrelid = fed.relid and a.attnum = fed.attnum
 where c.relkind in ('r', 'p')
   and not a.attisdropped
   and n.nspname not in ('pg_catalog', 'information_schema')
   and n.nspname !~ '^pg_(toast|temp)'
   and coalesce(obj_description(n.oid, 'pg_namespace'), '') not like 'mend:%'
   and (cast(:relation as text) = '' or c.oid = to_regclass(cast(:relation as text)))
 order by 1, 2

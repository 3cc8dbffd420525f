-- Which unique indexes and exclusion constraints have one of these columns, in the table or in what holds its rows?
-- binds: table_name text, column_names text[]
-- columns: identity text, relation_oid oid, whole bool, keys text[], collations text[], operators text[], usual bool, predicate text, nulls_equal bool,
--   exclusion bool, columns text[]
-- needs: PostgreSQL >= 13
with recursive tree as (
    select to_regclass(:table_name) as relid
     union
    select cast(i.inhrelid as regclass) from tree join pg_inherits as i on i.inhparent = tree.relid
), indexes as (
    select x.*, c.relname, c.relkind, c.relnamespace,
           array(select a.attname
                   from pg_attribute as a
                  where a.attrelid = x.indrelid
                    and a.attnum > 0
                    and (a.attnum = any (cast(x.indkey as int2[]))
                         or exists (select from pg_depend as d
                                     where d.classid = cast('pg_class' as regclass) and d.objid = x.indexrelid
                                       and d.refclassid = cast('pg_class' as regclass) and d.refobjid = x.indrelid and d.refobjsubid = a.attnum))) as names
      from pg_index as x
      join pg_class as c on c.oid = x.indexrelid
     where x.indrelid in (select relid from tree)
       and (x.indisunique or x.indisexclusion)
       and (x.indisready or c.relkind = 'I')
       and x.indislive
       and (x.indrelid = to_regclass(:table_name) or not exists (select from pg_inherits as i where i.inhrelid = x.indexrelid))
)
select format('%I.%I', n.nspname, x.relname)                           as identity,
       x.indrelid                                                      as relation_oid,
       x.relkind = 'I'                                                 as whole,
       array(select pg_get_indexdef(x.indexrelid, k, true) from generate_series(1, x.indnkeyatts) as k order by k) as keys,
       array(select case when o.oid is null then '' else format('collate %I.%I', cn.nspname, o.collname) end
               from generate_series(0, x.indnkeyatts - 1) as k
               left join pg_collation as o on o.oid = x.indcollation[k] and o.collname <> 'default'
               left join pg_namespace as cn on cn.oid = o.collnamespace
              order by k)                                              as collations,
       case when x.indisexclusion then
                array(select format('operator(%I.%s)', pn.nspname, p.oprname)
                        from pg_constraint as e
                        cross join unnest(e.conexclop) with ordinality as w (opr, position)
                        join pg_operator as p on p.oid = w.opr
                        join pg_namespace as pn on pn.oid = p.oprnamespace
                       where e.conindid = x.indexrelid and e.contype in ('x', 'p', 'u')
                       order by w.position)
            else
                array(select format('operator(%I.%s)', pn.nspname, p.oprname)
                        from generate_series(0, x.indnkeyatts - 1) as k
                        join pg_opclass as q on q.oid = x.indclass[k]
                        join pg_amop as m on m.amopfamily = q.opcfamily and m.amoplefttype = q.opcintype and m.amoprighttype = q.opcintype and m.amopstrategy = 3
                        join pg_operator as p on p.oid = m.amopopr
                        join pg_namespace as pn on pn.oid = p.oprnamespace
                       order by k)
            end                                                        as operators,
       not x.indisexclusion and not exists (
           select from generate_series(0, x.indnkeyatts - 1) as k
             join pg_opclass as q on q.oid = x.indclass[k]
             join pg_amop as m on m.amopfamily = q.opcfamily and m.amoplefttype = q.opcintype and m.amoprighttype = q.opcintype and m.amopstrategy = 3
            where not exists (
                select from pg_opclass as u
                  join pg_amop as e on e.amopfamily = u.opcfamily and e.amoplefttype = u.opcintype and e.amoprighttype = u.opcintype and e.amopstrategy = 3
                 where u.opcmethod = q.opcmethod and u.opcdefault and u.opcintype = q.opcintype and e.amopopr = m.amopopr)) as usual,
       coalesce(pg_get_expr(x.indpred, x.indrelid), '')                as predicate,
       coalesce(cast(to_jsonb(x) ->> 'indnullsnotdistinct' as bool), false) as nulls_equal,
       x.indisexclusion                                                as exclusion,
       array(select quote_ident(u) from unnest(x.names) as u)          as columns
  from indexes as x
  join pg_namespace as n on n.oid = x.relnamespace
 where exists (select from unnest(x.names) as u where quote_ident(u) = any (cast(:column_names as text[])))
 order by 1

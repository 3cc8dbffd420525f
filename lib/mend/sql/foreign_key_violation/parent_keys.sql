-- Which indexes of the parent hold exactly these columns, and can a foreign key lean on one?
-- binds: parent text, keys text[], child text, columns text[]
-- columns: index_name text, usable bool, why_not text, operators text[]
-- needs: PostgreSQL >= 13
with pairs as (
    select k.name as key, c.name as column, k.position
      from unnest(cast(:keys as text[])) with ordinality as k (name, position)
      join unnest(cast(:columns as text[])) with ordinality as c (name, position) on c.position = k.position
), child as (
    select p.position, coalesce(nullif(t.typbasetype, 0), t.oid) as type
      from pairs as p
      join pg_attribute as a on a.attrelid = to_regclass(:child) and quote_ident(a.attname) = p.column and not a.attisdropped
      join pg_type as t on t.oid = a.atttypid
), indexes as (
    select i.*, c.oid, c.relname, n.nspname,
           (select array_agg(quote_ident(a.attname) order by quote_ident(a.attname))
              from unnest(i.indkey) with ordinality as k (attnum, position)
              join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum
             where k.position <= i.indnkeyatts)                        as keys
      from pg_index as i
      join pg_class as c on c.oid = i.indexrelid
      join pg_namespace as n on n.oid = c.relnamespace
     where i.indrelid = to_regclass(:parent)
), candidates as (
    select i.*,
           concat_ws(', ',
               case when not i.indisunique then 'it is not unique' end,
               case when not i.indisvalid then 'it is INVALID' end,
               case when not i.indimmediate then 'its constraint is deferrable' end,
               case when i.indpred is not null then 'it is partial' end) as why_not
      from indexes as i
     where i.indexprs is null
       and i.keys = (select array_agg(key order by key) from pairs)
)
select format('%I.%I', i.nspname, i.relname)                            as index_name,
       i.why_not = ''                                                   as usable,
       i.why_not                                                        as why_not,
       (select array_agg(case when n.nspname = 'pg_catalog' then cast(o.oprname as text)
                              else format('operator(%I.%s)', n.nspname, o.oprname) end order by p.position)
          from pairs as p
          join child as c on c.position = p.position
          join unnest(i.indkey) with ordinality as k (attnum, position) on true
          join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum and quote_ident(a.attname) = p.key
          join unnest(i.indclass) with ordinality as l (opclass, position) on l.position = k.position
          join pg_opclass as f on f.oid = l.opclass
          join lateral (
                select m.amopopr
                  from pg_amop as m
                 where m.amopfamily = f.opcfamily and m.amopstrategy = 3 and m.amoplefttype = f.opcintype
                   and m.amoprighttype in (c.type, f.opcintype)
                 order by m.amoprighttype = c.type desc
                 limit 1) as e on true
          join pg_operator as o on o.oid = e.amopopr
          join pg_namespace as n on n.oid = o.oprnamespace)              as operators
  from candidates as i
 order by usable desc, index_name

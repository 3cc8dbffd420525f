-- Whose is the schema that mend would keep its ledger in, and is its table `run` as mend makes it?
-- binds: schema text
-- columns: marked bool, owner text, trusted bool, table_owner text, table_trusted bool, plain bool, columns text
-- needs: PostgreSQL >= 13

-- An owner may put code on a table that runs as whoever writes to it: only we ourselves, and superusers, who need no such way, are trusted.
select coalesce(pg_catalog.obj_description(n.oid, 'pg_namespace') like 'mend:%', false) as marked,
       cast(o.rolname as text)                                   as owner,
       o.rolname = current_user or o.rolsuper                    as trusted,
       cast(t.rolname as text)                                   as table_owner,
       coalesce(t.rolname = current_user or t.rolsuper, false)   as table_trusted,
       coalesce(c.relkind = 'r' and c.relpersistence = 'p' and not c.relhasrules and not c.relrowsecurity and not c.relhassubclass
         and not exists (select from pg_catalog.pg_trigger as g where g.tgrelid = c.oid and not g.tgisinternal)
         and not exists (select from pg_catalog.pg_policy as p where p.polrelid = c.oid)
         and not exists (select from pg_catalog.pg_inherits as h where h.inhrelid = c.oid)
         and not exists (select from pg_catalog.pg_constraint as k where k.conrelid = c.oid and k.contype not in ('p', 'u', 'n'))
         and not exists (select from pg_catalog.pg_index as i where i.indrelid = c.oid and (i.indexprs is not null or i.indpred is not null)), false) as plain,
       (select string_agg(pg_catalog.concat_ws(' ', a.attname, y.typname,
                            pg_catalog.pg_get_expr(d.adbin, d.adrelid)), ', ' order by a.attnum)
          from pg_catalog.pg_attribute as a
          join pg_catalog.pg_type as y on y.oid = a.atttypid and y.typnamespace = cast('pg_catalog' as regnamespace)
          left join pg_catalog.pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns
  from pg_catalog.pg_namespace as n
  join pg_catalog.pg_roles as o on o.oid = n.nspowner
  left join pg_catalog.pg_class as c on c.relnamespace = n.oid and c.relname = 'run'
  left join pg_catalog.pg_roles as t on t.oid = c.relowner
 where n.nspname = :schema

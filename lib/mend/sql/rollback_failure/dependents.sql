-- What depends on these objects, at any remove, and does it go along without a word or stand in the way?
-- binds: kinds text[], schemas text[], names text[], parts text[]
-- columns: kind text, identity text, free bool, class int8, object int8, part int8, on_class int8, on_object int8, on_part int8
-- needs: PostgreSQL >= 13

-- Every row is an object with one thing that it depends on, by numbers: which of those were reached is looked up by whoever asks, for the
-- planner would join ten thousand to ten thousand one by one.
-- As PostgreSQL's own walk (dependency.c): what depends automatically or internally goes along, whatever depends normally stands in the
-- way, unless it goes along by another path; and what is an internal part of something brings that with it.
with recursive pinned as materialized (
  select set_config('search_path', 'pg_catalog, pg_temp', true) as search_path
), wanted as materialized (
  select w.* from pinned p cross join unnest(cast(:kinds as text[]), cast(:schemas as text[]), cast(:names as text[]), cast(:parts as text[]))
    as w (kind, schema, name, part) where p.search_path is not null
), relations as materialized (
  select w.kind, w.part, c.oid from wanted w join pg_catalog.pg_namespace n on n.nspname = w.schema
    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.name
), start (classid, objid, objsubid) as materialized (
  select cast('pg_class' as regclass), r.oid, 0 from relations r
  where r.kind in ('table', 'view', 'matview', 'sequence', 'index', 'foreign_table')
  union select cast('pg_class' as regclass), r.oid, cast(a.attnum as int4) from relations r
    join pg_catalog.pg_attribute a on a.attrelid = r.oid and a.attname = r.part and not a.attisdropped where r.kind = 'column'
  union select cast('pg_constraint' as regclass), k.oid, 0 from relations r
    join pg_catalog.pg_constraint k on k.conrelid = r.oid and k.conname = r.part where r.kind = 'constraint'
  union select cast('pg_proc' as regclass), p.oid, 0 from wanted w join pg_catalog.pg_namespace n on n.nspname = w.schema
    join pg_catalog.pg_proc p on p.pronamespace = n.oid and p.proname = w.name and oidvectortypes(p.proargtypes) = w.part
    where w.kind in ('function', 'aggregate')
  union select cast('pg_type' as regclass), t.oid, 0 from wanted w join pg_catalog.pg_namespace n on n.nspname = w.schema
    join pg_catalog.pg_type t on t.typnamespace = n.oid and t.typname = w.name where w.kind in ('enum', 'domain', 'composite', 'range')
  union select cast('pg_namespace' as regclass), n.oid, 0 from wanted w join pg_catalog.pg_namespace n on n.nspname = w.name where w.kind = 'schema'
  union select cast('pg_extension' as regclass), e.oid, 0 from wanted w join pg_catalog.pg_extension e on e.extname = w.name where w.kind = 'extension'
), reached (classid, objid, objsubid, free) as (
  select s.classid, s.objid, s.objsubid, true from start s
  union
  select e.classid, e.objid, e.objsubid, r.free and e.free
  from reached r cross join lateral (
    select d.classid, d.objid, d.objsubid, d.deptype <> 'n' as free from pg_catalog.pg_depend d
    where d.refclassid = r.classid and d.refobjid = r.objid and (r.objsubid = 0 or d.refobjsubid = r.objsubid)
    union all
    select d.refclassid, d.refobjid, d.refobjsubid, true from pg_catalog.pg_depend d
    where not r.free and d.classid = r.classid and d.objid = r.objid and d.objsubid = r.objsubid and d.deptype = 'i') e
), found as materialized (
  select r.classid, r.objid, r.objsubid, bool_or(r.free) as free from reached r group by r.classid, r.objid, r.objsubid

-- Parts of an object are the object: the rule and the row type of a view, the index of a key, the expression of a generated column, the
-- array of a type, the multirange of a range.
), parts as materialized (
  select f.*, coalesce(w.classid, t.classid, y.classid, x.classid, g.classid, d.classid, f.classid) as own_classid,
         coalesce(w.objid, t.objid, y.objid, x.objid, g.objid, d.objid, f.objid) as own_objid,
         coalesce(w.objsubid, t.objsubid, y.objsubid, x.objsubid, g.objsubid, d.objsubid, f.objsubid) as own_objsubid
  from found f
    left join lateral (select cast('pg_class' as regclass) as classid, e.ev_class as objid, 0 as objsubid from pg_catalog.pg_rewrite e
                       where f.classid = cast('pg_rewrite' as regclass) and e.oid = f.objid and e.rulename = '_RETURN') w on true
    left join lateral (select cast('pg_class' as regclass) as classid, y.typrelid as objid, 0 as objsubid from pg_catalog.pg_type e
                         join pg_catalog.pg_type y on y.oid = case when e.typrelid = 0 then e.typelem else e.oid end
                       where f.classid = cast('pg_type' as regclass) and e.oid = f.objid and y.typrelid <> 0) t on true
    left join lateral (select e.refclassid as classid, e.refobjid as objid, 0 as objsubid from pg_catalog.pg_depend e
                       where f.classid = cast('pg_type' as regclass) and e.classid = f.classid and e.objid = f.objid
                         and e.refclassid = f.classid and e.deptype = 'i') y on true
    left join lateral (select e.refclassid as classid, e.refobjid as objid, 0 as objsubid from pg_catalog.pg_depend e
                       where f.classid = cast('pg_class' as regclass) and e.classid = f.classid and e.objid = f.objid and e.objsubid = 0
                         and e.refclassid = cast('pg_constraint' as regclass) and e.deptype = 'i') x on true
    left join lateral (select cast('pg_constraint' as regclass) as classid, e.tgconstraint as objid, 0 as objsubid from pg_catalog.pg_trigger e
                       where f.classid = cast('pg_trigger' as regclass) and e.oid = f.objid and e.tgisinternal and e.tgconstraint <> 0) g on true
    left join lateral (select cast('pg_class' as regclass) as classid, e.adrelid as objid, cast(e.adnum as int4) as objsubid
                       from pg_catalog.pg_attrdef e join pg_catalog.pg_attribute a on a.attrelid = e.adrelid and a.attnum = e.adnum
                       where f.classid = cast('pg_attrdef' as regclass) and e.oid = f.objid and a.attgenerated <> '') d on true
), named as materialized (
  select o.*, coalesce(r.kind, k.kind, p.kind, g.kind, w.kind, q.kind, a.kind, t.kind, s.kind, u.kind, z.type) as kind,
         coalesce(r.identity, k.identity, p.identity, g.identity, w.identity, q.identity, a.identity, t.identity, s.identity, u.identity, z.identity) as identity
  from (select distinct own_classid as classid, own_objid as objid, own_objsubid as objsubid from parts) o
    left join lateral (
      select case when l.attname is not null and c.relkind in ('r', 'p', 'f') then 'column' when c.relkind in ('r', 'p') then 'table' when c.relkind = 'v' then 'view'
                  when c.relkind = 'm' then 'matview' when c.relkind = 'S' then 'sequence' when c.relkind = 'f' then 'foreign_table'
                  when c.relkind = 'c' then 'composite' else 'index' end as kind,
             quote_ident(n.nspname) || '.' || quote_ident(c.relname)
             || case when l.attname is not null and c.relkind in ('r', 'p', 'f') then '.' || quote_ident(l.attname) else '' end as identity
      from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        left join pg_catalog.pg_attribute l on l.attrelid = c.oid and l.attnum = o.objsubid and o.objsubid > 0
      where o.classid = cast('pg_class' as regclass) and c.oid = o.objid) r on true
    left join lateral (
      select case when e.contypid <> 0 then 'domain_constraint' else 'constraint' end as kind,
             coalesce(quote_ident(n.nspname) || '.' || quote_ident(c.relname), quote_ident(m.nspname) || '.' || quote_ident(y.typname)) || '.' || quote_ident(e.conname) as identity
      from pg_catalog.pg_constraint e left join pg_catalog.pg_class c on c.oid = e.conrelid left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        left join pg_catalog.pg_type y on y.oid = e.contypid left join pg_catalog.pg_namespace m on m.oid = y.typnamespace
      where o.classid = cast('pg_constraint' as regclass) and e.oid = o.objid) k on true
    left join lateral (
      select case e.prokind when 'a' then 'aggregate' else 'function' end as kind,
             quote_ident(n.nspname) || '.' || quote_ident(e.proname) || '(' || oidvectortypes(e.proargtypes) || ')' as identity
      from pg_catalog.pg_proc e join pg_catalog.pg_namespace n on n.oid = e.pronamespace where o.classid = cast('pg_proc' as regclass) and e.oid = o.objid) p on true
    left join lateral (
      select 'trigger' as kind, quote_ident(n.nspname) || '.' || quote_ident(c.relname) || '.' || quote_ident(e.tgname) as identity
      from pg_catalog.pg_trigger e join pg_catalog.pg_class c on c.oid = e.tgrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where o.classid = cast('pg_trigger' as regclass) and e.oid = o.objid) g on true
    left join lateral (
      select 'rule' as kind, quote_ident(n.nspname) || '.' || quote_ident(c.relname) || '.' || quote_ident(e.rulename) as identity
      from pg_catalog.pg_rewrite e join pg_catalog.pg_class c on c.oid = e.ev_class join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where o.classid = cast('pg_rewrite' as regclass) and e.oid = o.objid) w on true
    left join lateral (
      select 'policy' as kind, quote_ident(n.nspname) || '.' || quote_ident(c.relname) || '.' || quote_ident(e.polname) as identity
      from pg_catalog.pg_policy e join pg_catalog.pg_class c on c.oid = e.polrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where o.classid = cast('pg_policy' as regclass) and e.oid = o.objid) q on true
    left join lateral (
      select 'default' as kind, quote_ident(n.nspname) || '.' || quote_ident(c.relname) || '.' || quote_ident(l.attname) as identity
      from pg_catalog.pg_attrdef e join pg_catalog.pg_class c on c.oid = e.adrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        join pg_catalog.pg_attribute l on l.attrelid = c.oid and l.attnum = e.adnum
      where o.classid = cast('pg_attrdef' as regclass) and e.oid = o.objid) a on true
    left join lateral (
      select case e.typtype when 'e' then 'enum' when 'd' then 'domain' when 'r' then 'range' else 'type' end as kind,
             quote_ident(n.nspname) || '.' || quote_ident(e.typname) as identity
      from pg_catalog.pg_type e join pg_catalog.pg_namespace n on n.oid = e.typnamespace
      where o.classid = cast('pg_type' as regclass) and e.oid = o.objid) t on true
    left join lateral (
      select 'statistics' as kind, quote_ident(n.nspname) || '.' || quote_ident(e.stxname) as identity
      from pg_catalog.pg_statistic_ext e join pg_catalog.pg_namespace n on n.oid = e.stxnamespace
      where o.classid = cast('pg_statistic_ext' as regclass) and e.oid = o.objid) s on true
    left join lateral (
      select 'publication' as kind, quote_ident(b.pubname) as identity
      from pg_catalog.pg_publication_rel e join pg_catalog.pg_publication b on b.oid = e.prpubid
      where o.classid = cast('pg_publication_rel' as regclass) and e.oid = o.objid) u on true
    left join lateral pg_identify_object(o.classid, o.objid, o.objsubid) z on r.kind is null and k.kind is null and p.kind is null and g.kind is null
      and w.kind is null and q.kind is null and a.kind is null and t.kind is null and s.kind is null and u.kind is null
), known as materialized (
  select p.classid, p.objid, p.objsubid, p.free, n.kind, n.identity, p.own_classid, p.own_objid, p.own_objsubid
  from parts p join named n on n.classid = p.own_classid and n.objid = p.own_objid and n.objsubid = p.own_objsubid
  where n.kind not in ('type', 'toast table', 'toast table column') and (p.own_classid <> cast('pg_class' as regclass) or p.own_objid not in (
    select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace m on m.oid = c.relnamespace where m.nspname = 'pg_toast'))
)
select k.kind, k.identity, k.free, cast(cast(k.classid as oid) as int8) as class, cast(k.objid as int8) as object, cast(k.objsubid as int8) as part,
       coalesce(cast(d.refclassid as int8), 0) as on_class, coalesce(cast(d.refobjid as int8), 0) as on_object, coalesce(cast(d.refobjsubid as int8), 0) as on_part
from known k left join pg_catalog.pg_depend d on d.classid = k.classid and d.objid = k.objid and d.objsubid = k.objsubid
order by k.kind, k.identity, class, object, part, on_class, on_object, on_part

-- Which views, foreign keys, functions, triggers and policies read these tables or columns?
-- binds: relations text[], columns text[]
-- columns: of text, kind text, reader text, known_by text, effect text
-- needs: PostgreSQL >= 13

-- one pair of relation and column for each thing that goes; the column is '' where the whole table does
with going as (
    select g.relation, g.col, cast(to_regclass(g.relation) as oid) as relid, a.attnum,
           g.relation || case when g.col = '' then '' else '.' || g.col end                          as of
      from unnest(cast(:relations as text[]), cast(:columns as text[])) as g (relation, col)
      left join pg_attribute as a on a.attrelid = to_regclass(g.relation) and quote_ident(a.attname) = g.col and not a.attisdropped
     where to_regclass(g.relation) is not null
), views as (
    select distinct g.of, case v.relkind when 'm' then 'materialized view' else 'view' end as kind,
           format('%I.%I', n.nspname, v.relname) as reader, 'dependency' as known_by, 'the migration fails (2BP01) while it is there' as effect
      from going as g
      join pg_depend as d on d.refclassid = cast('pg_class' as regclass) and d.refobjid = g.relid
       and (g.col = '' or d.refobjsubid = g.attnum)
      join pg_rewrite as r on d.classid = cast('pg_rewrite' as regclass) and d.objid = r.oid
      join pg_class as v on v.oid = r.ev_class and v.oid <> g.relid
      join pg_namespace as n on n.oid = v.relnamespace
), keys as (
    select g.of, 'foreign key' as kind, format('%s on %s', k.conname, cast(k.conrelid as regclass)) as reader, 'dependency' as known_by,
           'the migration fails (2BP01) while it is there' as effect
      from going as g
      join pg_constraint as k on k.confrelid = g.relid and k.contype = 'f' and k.conrelid <> g.relid
       and (g.col = '' or g.attnum = any (k.confkey))
), code as (
    select p.oid, format('%I.%s', n.nspname, p.proname) as reader, p.prosrc
      from pg_proc as p
      join pg_namespace as n on n.oid = p.pronamespace
      join pg_language as l on l.oid = p.prolang
     where l.lanname not in ('internal', 'c')
       and n.nspname not in ('pg_catalog', 'information_schema')
       and not exists (select from pg_depend as d where d.classid = cast('pg_proc' as regclass) and d.objid = p.oid and d.deptype = 'e')
), functions as (
    select g.of, 'function' as kind, c.reader, 'name in its text: a guess' as known_by, 'it fails when it next comes to that line' as effect
      from going as g
      join pg_class as t on t.oid = g.relid
      left join pg_attribute as a on a.attrelid = g.relid and a.attnum = g.attnum
      join code as c on position(lower(cast(t.relname as text)) in lower(c.prosrc)) > 0
       and (g.col = '' or position(lower(cast(a.attname as text)) in lower(c.prosrc)) > 0)
), triggers as (
    select g.of, 'trigger' as kind, format('%s on %s', t.tgname, cast(t.tgrelid as regclass)) as reader,
           case when cast(g.attnum as text) = any (string_to_array(cast(t.tgattr as text), ' ')) then 'dependency' else 'name in its function: a guess' end as known_by,
           'writes of the table fail when it runs' as effect
      from going as g
      join pg_trigger as t on t.tgrelid = g.relid and not t.tgisinternal and g.col <> ''
      join code as c on c.oid = t.tgfoid
      join pg_attribute as a on a.attrelid = g.relid and a.attnum = g.attnum
     where position(lower(cast(a.attname as text)) in lower(c.prosrc)) > 0
), policies as (
    select g.of, 'policy' as kind, format('%s on %s', p.polname, cast(p.polrelid as regclass)) as reader, 'dependency' as known_by,
           'the migration fails (2BP01) while it is there' as effect
      from going as g
      join pg_depend as d on d.refclassid = cast('pg_class' as regclass) and d.refobjid = g.relid and d.refobjsubid = g.attnum and g.col <> ''
      join pg_policy as p on d.classid = cast('pg_policy' as regclass) and d.objid = p.oid
)
select * from views
 union all select * from keys
 union all select * from functions
 union all select * from triggers
 union all select * from policies
 order by 1, 2, 3

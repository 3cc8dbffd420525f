-- What could these function names call?
-- binds: schema_names text[], function_names text[]
-- columns: asked text, name text, identity text, volatility text, kind text, returns_set bool, result_oid oid, provided bool
-- needs: PostgreSQL >= 13
select concat_ws('.', nullif(w.schema, ''), w.name)                    as asked,
       w.name                                                          as name,
       format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) as identity,
       cast(p.provolatile as text)                                     as volatility,
       cast(p.prokind as text)                                         as kind,
       p.proretset                                                     as returns_set,
       p.prorettype                                                    as result_oid,
       n.nspname = 'pg_catalog' or exists (
           select from pg_depend as d
            where d.classid = cast('pg_proc' as regclass) and d.objid = p.oid and d.deptype = 'e') as provided
  from unnest(cast(:schema_names as text[]), cast(:function_names as text[])) as w (schema, name)
  join pg_proc as p on p.proname = w.name
  join pg_namespace as n on n.oid = p.pronamespace
 where n.nspname = any (case when w.schema = '' then current_schemas(true) else array[cast(w.schema as name)] end)
 order by 1, 2

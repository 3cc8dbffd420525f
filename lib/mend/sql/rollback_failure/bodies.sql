-- Which functions have a body that PostgreSQL keeps as text, and that holds one of these words?
-- binds: words text[]
-- columns: identity text, language text, body text
-- needs: PostgreSQL >= 13

with pinned as materialized (
  select set_config('search_path', 'pg_catalog, pg_temp', true) as search_path
)
select quote_ident(n.nspname) || '.' || quote_ident(p.proname) || '(' || oidvectortypes(p.proargtypes) || ')' as identity,
       cast(l.lanname as text) as language, p.prosrc as body
from pinned i join pg_catalog.pg_proc p on i.search_path is not null join pg_catalog.pg_namespace n on n.oid = p.pronamespace
  join pg_catalog.pg_language l on l.oid = p.prolang
where l.lanname not in ('c', 'internal') and coalesce(p.prosrc, '') <> '' and left(n.nspname, 3) <> 'pg_' and n.nspname <> 'information_schema'
  and exists (select from unnest(cast(:words as text[])) as w (word) where position(lower(w.word) in lower(p.prosrc)) > 0)
  and not exists (select from pg_catalog.pg_depend d where d.objid = p.oid and d.deptype = 'e' and d.classid = cast('pg_catalog.pg_proc' as regclass))
order by 1

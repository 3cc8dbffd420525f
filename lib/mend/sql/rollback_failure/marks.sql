-- What do these relations have that a comparison of catalogs does not see: CLUSTER marks, rules switched off, statistics targets of index columns, contents never filled?
-- binds: relations text[]
-- columns: kind text, identity text, sql text, says text
-- needs: PostgreSQL >= 13

with pinned as materialized (
  select set_config('search_path', 'pg_catalog, pg_temp', true) as search_path
), relations as materialized (
  select c.oid, c.relkind, c.relispopulated, c.relacl, c.relowner, quote_ident(n.nspname) || '.' || quote_ident(c.relname) as identity
  from pinned p cross join unnest(cast(:relations as text[])) as w (identity)
    join pg_catalog.pg_class c on c.oid = to_regclass(w.identity) and p.search_path is not null
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
), indexes as materialized (
  select i.indexrelid, i.indisclustered, r.identity as relation, quote_ident(n.nspname) || '.' || quote_ident(c.relname) as identity,
         quote_ident(c.relname) as name
  from relations r join pg_catalog.pg_index i on i.indrelid = r.oid join pg_catalog.pg_class c on c.oid = i.indexrelid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
)
select 'index' as kind, i.identity, 'alter table ' || i.relation || ' cluster on ' || i.name as sql, 'is the one to CLUSTER by' as says
from indexes i where i.indisclustered
union all
select 'index', i.identity, 'alter index ' || i.identity || ' alter column ' || a.attnum || ' set statistics ' || a.attstattarget,
       'has a statistics target'
from indexes i join pg_catalog.pg_attribute a on a.attrelid = i.indexrelid and a.attstattarget >= 0
where pg_get_indexdef(i.indexrelid, a.attnum, false) <> ''
union all
select 'rule', r.identity || '.' || quote_ident(w.rulename),
       'alter table ' || r.identity || case w.ev_enabled when 'D' then ' disable rule ' when 'R' then ' enable replica rule ' else ' enable always rule ' end
       || quote_ident(w.rulename), 'does not fire as usual'
from relations r join pg_catalog.pg_rewrite w on w.ev_class = r.oid and w.ev_enabled <> 'O'
union all
select 'matview', r.identity, 'refresh materialized view ' || r.identity || ' with no data', 'was never filled'
from relations r where r.relkind = 'm' and not r.relispopulated
union all
select distinct 'grant', r.identity, '', quote_ident(pg_get_userbyid(x.grantor)) || ' granted privileges on it'
from relations r cross join lateral aclexplode(r.relacl) x where x.grantor <> r.relowner
order by 1, 2, 3

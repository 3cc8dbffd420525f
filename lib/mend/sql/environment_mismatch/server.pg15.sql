-- What does this database have that no migration makes: version, encoding, locale, collations, extensions, settings?
-- binds: none
-- columns: fact text, name text, value text, should_be text
-- needs: PostgreSQL >= 15
with here as (
  select d.*, to_jsonb(d) as row from pg_database as d where d.datname = current_database()
)
select 'server version' as fact, '' as name, current_setting('server_version') as value, cast(null as text) as should_be
union all
select 'encoding', '', pg_encoding_to_char(h.encoding), null from here as h
union all
select 'collate', '', coalesce(h.row ->> 'datcollate', ''), null from here as h
union all
select 'ctype', '', coalesce(h.row ->> 'datctype', ''), null from here as h
union all
select 'locale provider', '', coalesce(h.row ->> 'datlocprovider', ''), null from here as h
union all
select 'collation version', 'of the database', h.row ->> 'datcollversion', pg_database_collation_actual_version(h.oid)
  from here as h
 where h.row ->> 'datcollversion' is not null
union all
select 'collation version', quote_ident(n.nspname) || '.' || quote_ident(l.collname), l.collversion, pg_collation_actual_version(l.oid)
  from pg_collation as l
  join pg_namespace as n on n.oid = l.collnamespace
 where l.collversion is not null
   and exists (select from pg_attribute as a where a.attcollation = l.oid and a.attrelid >= 16384)
union all
select 'extension', quote_ident(e.extname), e.extversion, x.default_version
  from pg_extension as e
  left join pg_available_extensions as x on x.name = e.extname
union all
select 'setting', 'TimeZone', s.reset_val, null from pg_settings as s where s.name = 'TimeZone'
union all
select 'setting of ' || case when r.setrole = 0 then 'the database' else 'role ' || quote_ident(pg_get_userbyid(r.setrole)) end,
       split_part(c.item, '=', 1), substr(c.item, position('=' in c.item) + 1), null
  from here as h
  join pg_db_role_setting as r on r.setdatabase in (h.oid, 0)
 cross join unnest(r.setconfig) as c (item)
 order by fact, name, value

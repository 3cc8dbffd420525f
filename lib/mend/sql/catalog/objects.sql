-- Which objects does this database's schema consist of, and how is each defined?
-- binds: none
-- columns: kind text, identity text, definition text
-- needs: PostgreSQL >= 13

-- One statement for every driver, no binds, no percent sign, no colon. The replay probe runs it in the middle of a user's
-- transaction, so it must leave nothing behind. It reads the same text from the same object in every session. PostgreSQL
-- deparses definitions by the session's settings, so these are pinned first and put back last. The order is not left to the
-- planner. Each stage is computed from the result of the one before.
-- set_config(..., true) ends with the transaction, and with this statement when there is none. After an error in the middle
-- the rollback takes it back.
with saved as materialized (
  select w.name, w.value as wanted, current_setting(w.name) as value
  from (values ('search_path', 'pg_catalog, pg_temp'), ('TimeZone', 'UTC'), ('DateStyle', 'ISO, MDY'),
               ('IntervalStyle', 'postgres'), ('extra_float_digits', '1'), ('bytea_output', 'hex'),
               ('quote_all_identifiers', 'off')) as w (name, value)
), pinned as materialized (
  select count(set_config(s.name, case when s.value is not null then s.wanted end, true)) as settings from saved s

-- Where we look. Not in the system's schemas, not in ours (they carry a comment), not in what an extension brought.
), schemas as materialized (
  select n.oid, quote_ident(n.nspname) as name, n.nspowner as owner, n.nspacl as acl
  from pinned p join pg_catalog.pg_namespace n on p.settings > 0
  where left(n.nspname, 3) <> 'pg_' and n.nspname <> 'information_schema'
    and left(coalesce(obj_description(n.oid, 'pg_namespace'), ''), 5) <> 'mend' || chr(58)
), relations as materialized (
  select c.*, cast(c.relkind as text) as kind, s.name || '.' || quote_ident(c.relname) as identity
  from schemas s join pg_catalog.pg_class c on c.relnamespace = s.oid
  where c.relkind in ('r', 'p', 'f', 'v', 'm', 'S', 'c', 'i', 'I') and c.relpersistence <> 't'
    and not exists (select from pg_catalog.pg_depend d where d.objid = c.oid and d.deptype = 'e'
                      and d.classid = cast('pg_catalog.pg_class' as regclass)) /* some c.oid */
), columns as materialized ( -- a name that the catalog of an older server has not is found in `absent`
  select r.kind, r.identity || '.' || quote_ident(a.attname) as identity, a.attrelid, a.attnum, a.attinhcount = 0 as own,
         a.attname, a.attnotnull, a.attacl, a.attoptions, a.attfdwoptions, cast(a.attidentity as text) as attidentity,
         cast(a.attgenerated as text) as attgenerated, r.relowner as owner, t.typstorage, a.attstorage,
         format_type(a.atttypid, a.atttypmod)
         || coalesce((select ' collate ' || quote_ident(n.nspname) || '.' || quote_ident(l.collname)
                      from pg_catalog.pg_collation l join pg_catalog.pg_namespace n on n.oid = l.collnamespace
                      where l.oid = a.attcollation and a.attcollation <> t.typcollation), '') as type,
         coalesce(nullif(cast(a.attstattarget as text), '-1'), '') as statistics_target,
         cast(a.compression_since_14 as text) as compression, pg_get_expr(d.adbin, d.adrelid) as expression
  from relations r cross join (select cast('' as "char") as attcompression) absent
    join lateral (select p.*, attcompression as compression_since_14 from pg_catalog.pg_attribute p) a on a.attrelid = r.oid
    join pg_catalog.pg_type t on t.oid = a.atttypid
    left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where r.kind in ('r', 'p', 'f', 'v', 'm', 'c') and a.attnum > 0 and not a.attisdropped
), attributes as materialized (
  select c.attrelid, string_agg(replace(quote_ident(c.attname), chr(10), ' ') || ' ' || c.type, ', ' order by c.attnum) as list
  from columns c where c.kind in ('v', 'm', 'c') group by c.attrelid
), sequences as materialized (
  select r.oid, r.identity, q.*, format_type(q.seqtypid, null) as type, d.refobjid, d.refobjsubid,
         coalesce(cast(d.deptype as text), '') as tie
  from relations r join pg_catalog.pg_sequence q on q.seqrelid = r.oid
    left join pg_catalog.pg_depend d on d.objid = r.oid and d.objsubid = 0 and d.deptype in ('a', 'i')
      and d.classid = cast('pg_catalog.pg_class' as regclass) and d.refclassid = d.classid and d.refobjsubid > 0
), routines as materialized (
  select p.*, cast(p.prokind as text) as kind,
         s.name || '.' || quote_ident(p.proname) || '(' || oidvectortypes(p.proargtypes) || ')' as identity
  from schemas s join pg_catalog.pg_proc p on p.pronamespace = s.oid
  where not exists (select from pg_catalog.pg_depend d where d.objid = p.oid and d.deptype in ('e', 'i')
                      and d.classid = cast('pg_catalog.pg_proc' as regclass)) /* some p.oid */
), types as materialized (
  select t.*, cast(t.typtype as text) as kind, s.name || '.' || quote_ident(t.typname) as identity
  from schemas s join pg_catalog.pg_type t on t.typnamespace = s.oid
  where (t.typtype in ('e', 'd', 'r') or t.typrelid in (select r.oid from relations r where r.kind = 'c'))
    and not exists (select from pg_catalog.pg_depend d where d.objid = t.oid and d.deptype = 'e'
                      and d.classid = cast('pg_catalog.pg_type' as regclass)) /* some t.oid */

-- Who owns it, who may use it. Only what differs from PostgreSQL's own defaults is a grant.
), owned as materialized (
  select r.oid as unit, case r.kind when 'S' then 'sequence ' else 'table ' end || r.identity as label, r.relowner as owner,
         r.relacl as acl, case r.kind when 'S' then 's' else 'r' end as acl_kind, coalesce(q.tie, '') = '' as apart
  from relations r left join sequences q on q.oid = r.oid where r.kind in ('r', 'p', 'f', 'v', 'm', 'S')
  union all select 0, 'schema ' || s.name, s.owner, s.acl, 'n', true from schemas s
  union all select p.oid, 'routine ' || p.identity, p.proowner, p.proacl, 'f', true from routines p
  union all select t.oid, 'type ' || t.identity, t.typowner, t.typacl, 'T', true from types t
  union all select c.attrelid, 'column ' || c.identity, c.owner, c.attacl, 'c', false from columns c where c.attacl is not null
), grants as materialized (
  select o.unit, o.label || ' to ' || case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end as identity,
         coalesce(g.privileges, 'none') as privileges
  from owned o cross join lateral (
    select coalesce(live.grantee, usual.grantee) as grantee, live.privileges
    from (select x.grantee, string_agg(distinct x.privilege_type || case when x.is_grantable then ' with grant option' else '' end, ', ') as privileges
          from aclexplode(o.acl) x group by x.grantee) live
    full join (select x.grantee, string_agg(distinct x.privilege_type, ', ') as privileges
               from aclexplode(acldefault(cast(o.acl_kind as "char"), o.owner)) x group by x.grantee) usual
      on usual.grantee = live.grantee
    where live.privileges is distinct from usual.privileges) g
  where o.acl is not null

-- A partition's or child's columns, constraints and indexes that come from its parent are the parent's, and are not listed
-- again. What differs from the parent is listed, and so is every index that is not valid, wherever it is.
), objects as materialized (
  select 0 as unit, 'schema' as kind, s.name as identity, 'schema' as definition from schemas s
  union all
  select 0, 'extension', quote_ident(e.extname), 'schema ' || quote_ident(n.nspname) || ' version ' || quote_literal(e.extversion)
  from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
  union all
  select r.oid, case r.kind when 'f' then 'foreign_table' else 'table' end, r.identity,
         case when r.kind = 'f' then (select 'server ' || quote_ident(v.srvname) from pg_catalog.pg_foreign_table f
                join pg_catalog.pg_foreign_server v on v.oid = f.ftserver where f.ftrelid = r.oid)
              when r.relpersistence = 'u' then 'unlogged' else 'permanent' end
         || coalesce(' partition by ' || pg_get_partkeydef(r.oid), '')
  from relations r where r.kind in ('r', 'p', 'f')
  union all
  select r.oid, case when r.relispartition then 'partition' else 'inherits' end, r.identity,
         string_agg(p.identity || coalesce(' ' || pg_get_expr(r.relpartbound, r.oid), '')
                    || case when to_jsonb(i) ->> 'inhdetachpending' = 'true' then ' DETACH PENDING' else '' end, ', '
                    order by i.inhseqno)
  from relations r join pg_catalog.pg_inherits i on i.inhrelid = r.oid join relations p on p.oid = i.inhparent
  where r.kind in ('r', 'p', 'f') group by r.oid, r.relispartition, r.identity
  union all
  select r.oid, 'option', r.identity || '.' || o.prefix || split_part(o.item, '=', 1), substr(o.item, position('=' in o.item) + 1)
  from relations r cross join lateral (
    select '' as prefix, unnest(r.reloptions) as item
    union all select 'toast.', unnest(t.reloptions) from pg_catalog.pg_class t where t.oid = r.reltoastrelid) o
  where r.kind in ('r', 'p', 'f', 'v', 'm')
  union all
  select r.oid, 'tablespace', r.identity, quote_ident(t.spcname)
  from relations r join pg_catalog.pg_tablespace t on t.oid = r.reltablespace where r.kind in ('r', 'p', 'm', 'i', 'I')
  union all
  select o.relation, 'foreign_option', o.identity || '.' || o.option_name,
         case when o.option_name in ('password', 'passfile', 'sslpassword') then '...' else o.option_value end
  from (select r.oid as relation, r.identity, w.* from relations r join pg_catalog.pg_foreign_table f on f.ftrelid = r.oid
          cross join lateral pg_options_to_table(f.ftoptions) w where r.kind = 'f'
        union all
        select c.attrelid, c.identity, w.* from columns c cross join lateral pg_options_to_table(c.attfdwoptions) w
        where c.kind = 'f') o
  union all
  select r.oid, 'row_security', r.identity,
         concat_ws(', ', case when r.relrowsecurity then 'enabled' end, case when r.relforcerowsecurity then 'forced' end)
  from relations r where r.relrowsecurity or r.relforcerowsecurity
  union all
  select r.oid, 'replica_identity', r.identity,
         case r.relreplident when 'n' then 'nothing' when 'f' then 'full' else 'using index ' || (
           select quote_ident(x.relname) from pg_catalog.pg_index i join relations x on x.oid = i.indexrelid
           where i.indrelid = r.oid and i.indisreplident) end
  from relations r where r.relreplident <> 'd' and r.kind in ('r', 'p', 'm')
  union all
  select c.attrelid, 'column', c.identity, c.type
         || case c.attidentity when 'a' then ' generated always as identity' when 'd' then ' generated by default as identity' else '' end
         || case when c.attidentity = '' then '' else coalesce((select ' (' || nullif(concat_ws(' ',
                case when q.seqstart <> 1 then 'start with ' || q.seqstart end,
                case when q.seqincrement <> 1 then 'increment by ' || q.seqincrement end,
                case when q.seqmin <> 1 then 'minvalue ' || q.seqmin end,
                case when q.seqmax not in (32767, 2147483647, 9223372036854775807) then 'maxvalue ' || q.seqmax end,
                case when q.seqcache <> 1 then 'cache ' || q.seqcache end, case when q.seqcycle then 'cycle' end), '') || ')'
              from pg_catalog.pg_depend d join pg_catalog.pg_sequence q on q.seqrelid = d.objid
              where d.refobjid = c.attrelid and d.refobjsubid = c.attnum and d.deptype = 'i'
                and d.refclassid = cast('pg_catalog.pg_class' as regclass) and d.classid = d.refclassid), '') end
         || case c.attgenerated when '' then '' else ' generated always as (' || c.expression || ')' end
         || case c.attgenerated when 's' then ' stored' when 'v' then ' virtual' else '' end
  from columns c where c.own and c.kind in ('r', 'p', 'f')
  union all
  select c.attrelid, 'column_setting', c.identity || '.' || o.name, o.value
  from columns c cross join lateral (
    select 'statistics' as name, nullif(c.statistics_target, '') as value
    union all select 'storage', case c.attstorage when 'p' then 'plain' when 'e' then 'external' when 'm' then 'main' else 'extended' end
      || ' instead of ' || case c.typstorage when 'p' then 'plain' when 'e' then 'external' when 'm' then 'main' else 'extended' end
      where c.attstorage <> c.typstorage
    union all select 'compression', case c.compression when 'p' then 'pglz' when 'l' then 'lz4' end
    union all select split_part(a.item, '=', 1), split_part(a.item, '=', 2) from unnest(c.attoptions) as a (item)) o
  where (c.statistics_target <> '' or c.attstorage <> c.typstorage or c.compression <> '' or c.attoptions is not null)
    and o.value is not null and c.own and c.kind in ('r', 'p', 'f', 'm')
  union all
  select c.attrelid, 'default', c.identity, c.expression from columns c
  where c.attgenerated = '' and c.expression is not null and case when c.own then true else not exists (
    select from pg_catalog.pg_inherits i join pg_catalog.pg_attribute p on p.attrelid = i.inhparent and p.attname = c.attname
      join pg_catalog.pg_attrdef d on d.adrelid = p.attrelid and d.adnum = p.attnum
    where i.inhrelid = c.attrelid and pg_get_expr(d.adbin, d.adrelid) = c.expression) end
  union all
  select c.attrelid, 'not_null', c.identity, 'not null' || case when k.oid is not null then ' not valid' else '' end
  from columns c left join pg_catalog.pg_constraint k
    on k.conrelid = c.attrelid and k.contype = 'n' and not k.convalidated and k.conkey = array[c.attnum]
  where c.attnotnull and c.kind in ('r', 'p', 'f') and case when c.own then true else not exists (
    select from pg_catalog.pg_inherits i join pg_catalog.pg_attribute p on p.attrelid = i.inhparent and p.attname = c.attname
    where i.inhrelid = c.attrelid and p.attnotnull) end
  union all
  select r.oid, 'constraint', r.identity || '.' || quote_ident(k.conname), pg_get_constraintdef(k.oid)
  from relations r join pg_catalog.pg_constraint k on k.conrelid = r.oid
  where k.contype in ('c', 'p', 'u', 'f', 'x') and k.coninhcount = 0 and k.conparentid = 0
  union all
  select x.oid, 'index', x.identity, pg_get_indexdef(x.oid) || case
           when not i.indislive then ' INVALID, dead' when i.indisvalid and i.indisready then ''
           when x.kind = 'I' then ' INVALID, not attached to all partitions'
           when i.indisready then ' INVALID, ready' else ' INVALID' end
  from relations r join pg_catalog.pg_index i on i.indrelid = r.oid join relations x on x.oid = i.indexrelid
    left join pg_catalog.pg_constraint k on k.conrelid = r.oid and k.conindid = x.oid and k.contype in ('p', 'u', 'x')
  where not (i.indisvalid and i.indisready and i.indislive) or (not x.relispartition and k.oid is null)
  union all
  select q.oid, 'sequence', q.identity, 'as ' || q.type || ' increment by ' || q.seqincrement || ' minvalue ' || q.seqmin || ' maxvalue '
         || q.seqmax || ' start with ' || q.seqstart || ' cache ' || q.seqcache || case when q.seqcycle then ' cycle' else ' no cycle' end
  from sequences q where q.tie <> 'i'
  union all
  select q.oid, 'sequence_owner', q.identity, c.identity
  from sequences q join columns c on c.attrelid = q.refobjid and c.attnum = q.refobjsubid where q.tie = 'a'
  union all
  select r.oid, case r.kind when 'v' then 'view' else 'matview' end, r.identity,
         '-- (' || coalesce(a.list, '') || ')' || chr(10) || rtrim(pg_get_viewdef(r.oid), chr(59))
  from relations r left join attributes a on a.attrelid = r.oid where r.kind in ('v', 'm')
  union all
  select p.oid, 'function', p.identity, pg_get_functiondef(p.oid) from routines p where p.kind in ('f', 'p', 'w')
  union all
  select p.oid, 'aggregate', p.identity, concat_ws(', ', '(sfunc = ' || cast(a.aggtransfn as text), 'stype = ' || format_type(a.aggtranstype, null),
         'finalfunc = ' || nullif(cast(a.aggfinalfn as text), '-'), 'combinefunc = ' || nullif(cast(a.aggcombinefn as text), '-'),
         'initcond = ' || quote_literal(a.agginitval)) || ')'
  from routines p join pg_catalog.pg_aggregate a on a.aggfnoid = p.oid where p.kind = 'a'
  union all
  select r.oid, 'trigger', r.identity || '.' || quote_ident(g.tgname), pg_get_triggerdef(g.oid)
  from relations r join pg_catalog.pg_trigger g on g.tgrelid = r.oid where not g.tgisinternal and g.tgparentid = 0
  union all
  select r.oid, 'trigger_state', r.identity || '.' || quote_ident(g.tgname),
         case g.tgenabled when 'D' then 'disabled' when 'R' then 'replica' else 'always' end
  from relations r join pg_catalog.pg_trigger g on g.tgrelid = r.oid
  where not g.tgisinternal and g.tgparentid = 0 and g.tgenabled <> 'O'
  union all
  select r.oid, 'rule', r.identity || '.' || quote_ident(w.rulename), rtrim(pg_get_ruledef(w.oid), chr(59))
  from relations r join pg_catalog.pg_rewrite w on w.ev_class = r.oid where w.rulename <> '_RETURN'
  union all
  select r.oid, 'policy', r.identity || '.' || quote_ident(p.polname),
         'as ' || case when p.polpermissive then 'permissive' else 'restrictive' end || ' for '
         || case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end
         || ' to ' || (select string_agg(case o.role when 0 then 'public' else quote_ident(pg_get_userbyid(o.role)) end, ', ' order by o.role)
                       from unnest(p.polroles) as o (role))
         || coalesce(' using (' || pg_get_expr(p.polqual, p.polrelid) || ')', '')
         || coalesce(' with check (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')', '')
  from relations r join pg_catalog.pg_policy p on p.polrelid = r.oid
  union all
  select t.oid, 'enum', t.identity, '(' || coalesce((select string_agg(quote_literal(e.enumlabel), ', ' order by e.enumsortorder)
                                     from pg_catalog.pg_enum e where e.enumtypid = t.oid), '') || ')'
  from types t where t.kind = 'e'
  union all
  select t.oid, 'domain', t.identity, format_type(t.typbasetype, t.typtypmod)
         || coalesce((select ' collate ' || quote_ident(n.nspname) || '.' || quote_ident(l.collname)
                      from pg_catalog.pg_collation l join pg_catalog.pg_namespace n on n.oid = l.collnamespace
                        join pg_catalog.pg_type b on b.oid = t.typbasetype
                      where l.oid = t.typcollation and t.typcollation <> b.typcollation), '')
         || coalesce(' default ' || pg_get_expr(t.typdefaultbin, 0), '') || case when t.typnotnull then ' not null' else '' end
  from types t where t.kind = 'd'
  union all
  select t.oid, 'domain_constraint', t.identity || '.' || quote_ident(k.conname), pg_get_constraintdef(k.oid)
  from types t join pg_catalog.pg_constraint k on k.contypid = t.oid where k.contype = 'c'
  union all
  select t.oid, 'range', t.identity, concat_ws(', ', '(subtype = ' || format_type(g.rngsubtype, null),
         'canonical = ' || nullif(cast(g.rngcanonical as text), '-'), 'subtype_diff = ' || nullif(cast(g.rngsubdiff as text), '-')) || ')'
  from types t join pg_catalog.pg_range g on g.rngtypid = t.oid where t.kind = 'r'
  union all
  select r.reltype, 'composite', r.identity, '(' || coalesce(a.list, '') || ')'
  from relations r left join attributes a on a.attrelid = r.oid where r.kind = 'c'
  union all
  select x.stxrelid, 'statistics', s.name || '.' || quote_ident(x.stxname), pg_get_statisticsobjdef(x.oid)
  from schemas s join pg_catalog.pg_statistic_ext x on x.stxnamespace = s.oid /* some x.stxrelid */
  union all
  select 0, 'publication', quote_ident(p.pubname),
         case when p.puballtables then 'for all tables' else coalesce('for ' || string_agg(e.item, ', ' order by e.item), 'for nothing') end
         || ' with (publish = ' || quote_literal(concat_ws(', ', case when p.pubinsert then 'insert' end, case when p.pubupdate then 'update' end,
              case when p.pubdelete then 'delete' end, case when p.pubtruncate then 'truncate' end))
         || case when p.pubviaroot then ', publish_via_partition_root' else '' end || ')'
  from pg_catalog.pg_publication p left join (
    select x.prpubid as publication, 'table ' || r.identity || coalesce(' columns ' || (to_jsonb(x) ->> 'prattrs'), '')
           || case when to_jsonb(x) ->> 'prqual' is not null then ' where ...' else '' end as item
    from pg_catalog.pg_publication_rel x join relations r on r.oid = x.prrelid
    union all
    select d.refobjid, 'tables in schema ' || s.name
    from pg_catalog.pg_depend d join pg_catalog.pg_depend n on n.classid = d.classid and n.objid = d.objid join schemas s on s.oid = n.refobjid
    where d.classid = to_regclass('pg_catalog.pg_publication_namespace') and n.refclassid = cast('pg_catalog.pg_namespace' as regclass)
      and d.refclassid = cast('pg_catalog.pg_publication' as regclass)) e on e.publication = p.oid
  group by p.oid, p.pubname, p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot
  union all
  select 0, 'event_trigger', quote_ident(g.evtname), 'on ' || quote_ident(g.evtevent)
         || coalesce(' when tag in (' || (select string_agg(quote_literal(o.tag), ', ') from unnest(g.evttags) as o (tag)) || ')', '')
         || ' execute function ' || p.identity || case g.evtenabled when 'D' then ' disabled' else '' end
  from pg_catalog.pg_event_trigger g join routines p on p.oid = g.evtfoid
  union all
  select 0, 'foreign_server', quote_ident(v.srvname), 'foreign data wrapper ' || quote_ident(w.fdwname)
         || coalesce(' options (' || (select string_agg(quote_ident(o.option_name) || ' ' || case when o.option_name in ('password', 'passfile', 'sslpassword')
              then '''...''' else quote_literal(o.option_value) end, ', ') from pg_options_to_table(v.srvoptions) o) || ')', '')
  from pg_catalog.pg_foreign_server v join pg_catalog.pg_foreign_data_wrapper w on w.oid = v.srvfdw
  where not exists (select from pg_catalog.pg_depend d where d.objid = v.oid and d.deptype = 'e'
                      and d.classid = cast('pg_catalog.pg_foreign_server' as regclass))
  union all
  select 0, 'user_mapping', quote_ident(u.srvname) || '.' || quote_ident(u.usename), 'present' from pg_catalog.pg_user_mappings u
  union all
  select 0, 'setting', case s.setrole when 0 then 'database' else 'role ' || quote_ident(pg_get_userbyid(s.setrole)) end || '.'
         || split_part(c.item, '=', 1), substr(c.item, position('=' in c.item) + 1)
  from pg_catalog.pg_database d join pg_catalog.pg_db_role_setting s on s.setdatabase = d.oid cross join unnest(s.setconfig) as c (item)
  where d.datname = current_database()
  union all
  select 0, 'default_privilege', 'for ' || quote_ident(pg_get_userbyid(a.defaclrole)) || coalesce(' in ' || s.name, '') || ' on '
         || case a.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'routines' when 'T' then 'types'
              when 'n' then 'schemas' else 'large objects' end
         || ' to ' || case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end, coalesce(g.privileges, 'none')
  from pg_catalog.pg_default_acl a left join schemas s on s.oid = a.defaclnamespace cross join lateral (
    select coalesce(live.grantee, usual.grantee) as grantee, live.privileges
    from (select x.grantee, string_agg(distinct x.privilege_type || case when x.is_grantable then ' with grant option' else '' end, ', ') as privileges
          from aclexplode(a.defaclacl) x group by x.grantee) live
    full join (select x.grantee, string_agg(distinct x.privilege_type, ', ') as privileges
               from aclexplode(acldefault(cast(lower(cast(a.defaclobjtype as text)) as "char"), a.defaclrole)) x
               where a.defaclnamespace = 0 and a.defaclobjtype in ('r', 'S', 'f', 'n') group by x.grantee
               union all select x.grantee, 'USAGE' from aclexplode(acldefault('T', a.defaclrole)) x
               where a.defaclnamespace = 0 and a.defaclobjtype = 'T') usual
      on usual.grantee = live.grantee
    where live.privileges is distinct from usual.privileges) g
  where a.defaclnamespace = 0 or s.oid is not null

-- The rarer kinds. That they exist, not how they are made.
  union all
  select 0, replace(i.type, ' ', '_'), i.identity, 'present'
  from pinned q cross join (
    select tableoid as class, oid from pg_catalog.pg_collation union all select tableoid, oid from pg_catalog.pg_operator
    union all select tableoid, oid from pg_catalog.pg_opclass union all select tableoid, oid from pg_catalog.pg_opfamily
    union all select tableoid, oid from pg_catalog.pg_cast union all select tableoid, oid from pg_catalog.pg_conversion
    union all select tableoid, oid from pg_catalog.pg_ts_config union all select tableoid, oid from pg_catalog.pg_ts_dict
    union all select tableoid, oid from pg_catalog.pg_language union all select tableoid, oid from pg_catalog.pg_am
    union all select tableoid, oid from pg_catalog.pg_foreign_data_wrapper) k
    cross join lateral pg_identify_object(k.class, k.oid, 0) i
  where k.oid >= 16384 and q.settings > 0 and (i.schema is null or i.schema in (select s.name from schemas s))
    and not exists (select from pg_catalog.pg_depend d where d.objid = k.oid and d.classid = k.class and d.deptype in ('e', 'i'))
  union all
  select coalesce(nullif(k.conrelid, 0), nullif(k.contypid, 0), g.tgrelid, w.ev_class, p.polrelid, d.objoid), 'comment', case when right(i.type, 7) = ' column' then 'column' when right(i.type, 11) = ' constraint' then 'constraint'
           when i.type = 'composite type' then 'type' when i.type = 'statistics object' then 'statistics' else i.type end || ' '
         || case when i.type = 'domain constraint' then replace(i.identity, ' on ', ' on domain ') else i.identity end, d.description
  from pinned q join pg_catalog.pg_description d on d.objoid >= 16384 and q.settings > 0
    left join pg_catalog.pg_constraint k on d.classoid = cast('pg_catalog.pg_constraint' as regclass) and k.oid = d.objoid
    left join pg_catalog.pg_trigger g on d.classoid = cast('pg_catalog.pg_trigger' as regclass) and g.oid = d.objoid
    left join pg_catalog.pg_rewrite w on d.classoid = cast('pg_catalog.pg_rewrite' as regclass) and w.oid = d.objoid
    left join pg_catalog.pg_policy p on d.classoid = cast('pg_catalog.pg_policy' as regclass) and p.oid = d.objoid
    cross join lateral pg_identify_object(d.classoid, d.objoid, d.objsubid) i
  where case
      when d.classoid = cast('pg_catalog.pg_class' as regclass) then d.objoid in (select r.oid from relations r)
      when coalesce(nullif(k.conrelid, 0), g.tgrelid, w.ev_class, p.polrelid) is not null
        then coalesce(nullif(k.conrelid, 0), g.tgrelid, w.ev_class, p.polrelid) in (select r.oid from relations r)
      when k.oid is not null then k.contypid in (select t.oid from types t)
      when d.classoid = cast('pg_catalog.pg_type' as regclass) then d.objoid in (select t.oid from types t)
      when d.classoid = cast('pg_catalog.pg_proc' as regclass) then d.objoid in (select o.oid from routines o)
      when d.classoid = cast('pg_catalog.pg_namespace' as regclass) then d.objoid in (select s.oid from schemas s)
      else i.schema is null or i.schema in (select s.name from schemas s) end
    and d.classoid <> cast('pg_catalog.pg_extension' as regclass) /* said d.objoid */
    and not exists (select from pg_catalog.pg_depend e where e.objid = d.objoid and e.classid = d.classoid and e.deptype = 'e')
  union all
  select g.unit, 'grant', g.identity, g.privileges from grants g
  union all
  select o.unit, 'owner', o.label, quote_ident(pg_get_userbyid(o.owner)) from owned o where o.apart

), counted as materialized (
  select count(o.definition) as objects from objects o
), restored as materialized (
  select count(set_config(s.name, case when c.objects >= 0 then s.value end, true)) as settings from saved s cross join counted c
)
select o.kind, o.identity, o.definition
from restored r left join objects o on r.settings > 0
where coalesce(o.kind, '') <> ''
order by o.kind collate pg_catalog."C", o.identity collate pg_catalog."C"

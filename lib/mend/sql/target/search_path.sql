-- Which search_path also finds the operators by which types of extensions are equal?
-- binds: none
-- columns: path text
-- needs: PostgreSQL >= 13

-- without its own operators citext is compared as text: other rows are equal than for its indexes and foreign keys. A schema in which
-- anybody may make operators is left out: they would run as us
select concat_ws(', ', current_setting('search_path'), s.schemas) as path
  from (select string_agg(distinct quote_ident(n.nspname), ', ') as schemas
          from pg_opclass as c
          join pg_am as m on m.oid = c.opcmethod and m.amname = 'btree'
          join pg_amop as a on a.amopfamily = c.opcfamily and a.amoplefttype = c.opcintype and a.amoprighttype = c.opcintype and a.amopstrategy = 3
          join pg_operator as o on o.oid = a.amopopr
          join pg_namespace as n on n.oid = o.oprnamespace
         where c.opcdefault
           and n.nspname <> 'pg_catalog'
           and not n.nspname = any(current_schemas(true))
           and has_schema_privilege(n.oid, 'usage')
           and not has_schema_privilege('public', n.oid, 'create')) as s
 where s.schemas is not null

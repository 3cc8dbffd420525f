-- Where does a session of this role look for names, and which of these schemas hold a version table?
-- binds: none
-- columns: path text, schemas text[]
-- needs: PostgreSQL >= 13
with looked_in as (
    select u.schema, u.place
      from unnest(current_schemas(false)) with ordinality as u (schema, place)
)
select coalesce((select string_agg(quote_ident(l.schema), ', ' order by l.place) from looked_in as l), '') as path,
       array(select cast(l.schema as text)
               from looked_in as l
               join pg_namespace as n on n.nspname = l.schema
              where n.nspname <> 'public'
                and exists (select
                              from pg_class as c
                              join pg_attribute as a on a.attrelid = c.oid
                             where c.relnamespace = n.oid
                               and c.relkind in ('r', 'p')
                               and a.attname = 'version_num'
                               and not a.attisdropped)
              order by l.place)                                                                            as schemas

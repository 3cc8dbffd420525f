-- Is pg_stat_statements there, and in which schema?
-- binds: none
-- columns: available bool, installed_schema text, preloaded bool, may_read bool
-- needs: PostgreSQL >= 13
select exists (select from pg_available_extensions where name = 'pg_stat_statements')      as available,
       coalesce((select format('%I', n.nspname)
                   from pg_extension as e
                   join pg_namespace as n on n.oid = e.extnamespace
                  where e.extname = 'pg_stat_statements'), '')                             as installed_schema,
       -- a setting of its own shows that the library is loaded; shared_preload_libraries is for superusers to read
       exists (select from pg_settings where name = 'pg_stat_statements.max')              as preloaded,
       pg_has_role(current_user, 'pg_read_all_stats', 'usage')                             as may_read

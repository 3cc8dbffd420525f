-- Which database is this, and as whom are we here?
-- binds: none
-- columns: system_identifier text, database text, database_oid int8, server_version text, version_num int4, role text, session_role text, superuser bool, in_recovery bool, may_create_schema bool, started_at text
-- needs: PostgreSQL >= 13
select cast(c.system_identifier as text)                              as system_identifier,
       cast(d.datname as text)                                        as database,
       cast(d.oid as int8)                                            as database_oid,
       current_setting('server_version')                              as server_version,
       cast(current_setting('server_version_num') as int4)            as version_num,
       cast(current_user as text)                                     as role,
       cast(session_user as text)                                     as session_role,
       r.rolsuper                                                     as superuser,
       pg_is_in_recovery()                                            as in_recovery,
       has_database_privilege(d.oid, 'create')                        as may_create_schema,
       cast(date_trunc('second', pg_postmaster_start_time() at time zone 'utc') as text) as started_at
  from pg_control_system() as c
  join pg_database as d on d.datname = current_database()
  join pg_roles as r on r.rolname = current_user

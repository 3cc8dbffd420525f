-- What may this role see and do, and what does the server hide from it?
-- binds: none
-- columns: role text, superuser bool, sees_all bool, may_signal bool, sessions int8, hidden int8, hidden_roles text, in_recovery bool, backend_pid int4, poolers text
-- needs: PostgreSQL >= 13
with others as (
    select a.pid, a.usename, a.backend_start, a.application_name
      from pg_stat_activity as a
     where a.datname = current_database()
       and a.pid <> pg_backend_pid()
)
select cast(current_user as text)                                                     as role,
       me.rolsuper                                                                    as superuser,
       me.rolsuper or pg_has_role('pg_read_all_stats', 'usage')                       as sees_all,
       me.rolsuper or pg_has_role('pg_signal_backend', 'usage')                       as may_signal,
       (select count(*) from others)                                                  as sessions,
       (select count(*) from others where backend_start is null)                      as hidden,
       coalesce((select string_agg(distinct cast(usename as text), ', ') from others where backend_start is null), '') as hidden_roles,
       pg_is_in_recovery()                                                            as in_recovery,
       pg_backend_pid()                                                               as backend_pid,
       coalesce((select string_agg(distinct application_name, ', ') from others
                  where application_name ~* '(pgbouncer|pgpool|odyssey|pgcat|supavisor|rds ?proxy)'), '') as poolers
  from pg_roles as me
 where me.rolname = current_user

-- May this role see what others do, and is this the server on which a migration can run?
-- binds: none
-- columns: sees_all bool, in_recovery bool, hidden int4, two_migrators bool
-- needs: PostgreSQL >= 13
select pg_has_role(current_user, 'pg_read_all_stats', 'usage')                             as sees_all,
       pg_is_in_recovery()                                                                 as in_recovery,
       (select cast(count(*) as int4)
          from pg_stat_activity
         where datname = current_database() and query = '<insufficient privilege>')        as hidden,
       (select count(distinct l.pid) > 1
          from pg_locks as l
          join pg_class as c on c.oid = l.relation
         where c.relname = 'alembic_version' and l.pid <> pg_backend_pid()
           and l.database = (select oid from pg_database where datname = current_database())) as two_migrators

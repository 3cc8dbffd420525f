-- Which transactions are prepared on this server, and may this role finish them?
-- binds: none
-- columns: gid text, xid text, prepared_at text (UTC), owner text, database text, age_s float8 (seconds), here bool, may_finish bool
-- needs: PostgreSQL >= 13
select p.gid                                                                         as gid,
       cast(p.transaction as text)                                                   as xid,
       to_char(p.prepared at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'   as prepared_at,
       cast(p.owner as text)                                                         as owner,
       cast(p.database as text)                                                      as database,
       cast(extract(epoch from clock_timestamp() - p.prepared) as float8)            as age_s,
       p.database = current_database()                                               as here,
       me.rolsuper or p.owner = current_user                                         as may_finish
  from pg_prepared_xacts as p
  join pg_roles as me on me.rolname = current_user
 order by p.prepared, p.gid

-- Is a transaction prepared under this name, and which one?
-- binds: gid text
-- columns: gid text, xid text, prepared_at text (UTC), owner text, database text
-- needs: PostgreSQL >= 13
select p.gid                                                                                      as gid,
       cast(p.transaction as text)                                                                as xid,
       to_char(p.prepared at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'                as prepared_at,
       cast(p.owner as text)                                                                      as owner,
       cast(p.database as text)                                                                   as database
  from pg_prepared_xacts as p
 where p.gid = cast(:gid as text)

-- How did this transaction end?
-- binds: xid text
-- columns: status text
-- needs: PostgreSQL >= 13
select coalesce(pg_xact_status(cast(:xid as xid8)), 'too old') as status

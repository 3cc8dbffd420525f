-- How many bytes of WAL were written so far?
-- binds: none
-- columns: written_bytes float8 (bytes)
-- needs: PostgreSQL >= 13
select cast(pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') as float8) as written_bytes

-- How much WAL has the server written, and temporary files this database?
-- binds: none
-- columns: at_s float8 (seconds), written_bytes float8 (bytes), temp_bytes float8 (bytes), max_wal_bytes float8 (bytes), kept_wal_bytes float8 (bytes)
-- needs: PostgreSQL >= 13
select cast(extract(epoch from clock_timestamp()) as float8)                               as at_s,
       cast(pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, '0/0') as float8) as written_bytes,
       (select cast(temp_bytes as float8) from pg_stat_database where datname = current_database()) as temp_bytes,
       cast(pg_size_bytes(current_setting('max_wal_size')) as float8)                      as max_wal_bytes,
       cast(pg_size_bytes(current_setting('max_slot_wal_keep_size', true)) as float8)      as kept_wal_bytes

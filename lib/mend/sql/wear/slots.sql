-- Which replication slots keep WAL, and how much?
-- binds: none
-- columns: slot text, kind text, active bool, retained_bytes float8 (bytes), wal_status text
-- needs: PostgreSQL >= 13
select cast(slot_name as text)                                                             as slot,
       slot_type                                                                           as kind,
       active                                                                              as active,
       cast(pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, restart_lsn) as float8) as retained_bytes,
       coalesce(wal_status, '')                                                            as wal_status
  from pg_replication_slots
 order by retained_bytes desc nulls last, slot

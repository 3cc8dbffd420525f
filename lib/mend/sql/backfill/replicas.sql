-- How far are the replicas behind?
-- binds: none
-- columns: replica text, lag_s float8 (seconds), replay_bytes float8 (bytes), state text, visible bool
-- needs: PostgreSQL >= 13, pg_monitor

-- replay_lag stands still while a replica replays nothing at all, so its position is asked for too
select coalesce(nullif(application_name, ''), 'pid ' || pid)                        as replica,
       cast(extract(epoch from replay_lag) as float8)                               as lag_s,
       cast(pg_wal_lsn_diff(replay_lsn, '0/0') as float8)                           as replay_bytes,
       coalesce(state, '')                                                          as state,
       pg_has_role(current_user, 'pg_read_all_stats', 'usage')                      as visible
  from pg_stat_replication
 where coalesce(state, '') <> 'backup'
 order by 1, pid

-- Is WAL archived, and since when without a failure?
-- binds: none
-- columns: wal_level text, archive_mode text, archived int8 (segments), last_archived timestamptz, failed int8 (segments), last_failed timestamptz, in_recovery bool, apply_delay text
-- needs: PostgreSQL >= 13
select current_setting('wal_level')                                                  as wal_level,
       current_setting('archive_mode')                                               as archive_mode,
       a.archived_count                                                              as archived,
       a.last_archived_time                                                          as last_archived,
       a.failed_count                                                                as failed,
       a.last_failed_time                                                            as last_failed,
       pg_is_in_recovery()                                                           as in_recovery,
       current_setting('recovery_min_apply_delay')                                   as apply_delay
  from pg_stat_archiver as a

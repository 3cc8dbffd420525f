-- Does this server keep the time of each commit, and may it be asked?
-- binds: none
-- columns: kept bool
-- needs: PostgreSQL >= 13
select current_setting('track_commit_timestamp') = 'on' and not pg_is_in_recovery() as kept

-- How often did this database cancel somebody to end a deadlock, and which settings decide how long anybody waits?
-- binds: none
-- columns: deadlocks int8, counted_since text (UTC), deadlock_timeout text, log_lock_waits text, lock_timeout text, idle_in_transaction_session_timeout text, statement_timeout text, client_connection_check_interval text, max_prepared_transactions text
-- needs: PostgreSQL >= 13
select d.deadlocks                                                                    as deadlocks,
       coalesce(to_char(d.stats_reset at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS'), 'the server was made') as counted_since,
       current_setting('deadlock_timeout')                                            as deadlock_timeout,
       current_setting('log_lock_waits')                                              as log_lock_waits,
       -- those of this session are ours: what a new session of this role would get
       coalesce((select s.reset_val || s.unit from pg_settings as s where s.name = 'lock_timeout'), '') as lock_timeout,
       coalesce((select s.reset_val || s.unit from pg_settings as s where s.name = 'idle_in_transaction_session_timeout'), '') as idle_in_transaction_session_timeout,
       coalesce((select s.reset_val || s.unit from pg_settings as s where s.name = 'statement_timeout'), '') as statement_timeout,
       coalesce(current_setting('client_connection_check_interval', true), 'not before 14') as client_connection_check_interval,
       current_setting('max_prepared_transactions')                                   as max_prepared_transactions
  from pg_stat_database as d
 where d.datname = current_database()

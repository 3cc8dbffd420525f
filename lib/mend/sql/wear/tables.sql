-- How many dead rows do these tables carry, and when were they vacuumed and analyzed?
-- binds: relations text[]
-- columns: relation text, live_rows float8 (rows), dead_rows float8 (rows), last_vacuum timestamptz, last_analyze timestamptz, analyzed_rows_since float8 (rows)
-- needs: PostgreSQL >= 13
select format('%I.%I', schemaname, relname)                                                as relation,
       cast(n_live_tup as float8)                                                          as live_rows,
       cast(n_dead_tup as float8)                                                          as dead_rows,
       greatest(last_vacuum, last_autovacuum)                                              as last_vacuum,
       greatest(last_analyze, last_autoanalyze)                                            as last_analyze,
       cast(n_mod_since_analyze as float8)                                                 as analyzed_rows_since
  from pg_stat_user_tables
 where format('%I.%I', schemaname, relname) = any (cast(:relations as text[]))
 order by 1

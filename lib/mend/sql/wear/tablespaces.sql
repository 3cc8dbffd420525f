-- How large are the tablespaces that this role may measure?
-- binds: none
-- columns: tablespace text, bytes float8 (bytes)
-- needs: PostgreSQL >= 13, pg_monitor

-- how much room is left beside them only the operating system knows
select cast(spcname as text)                                                               as tablespace,
       case when pg_has_role(current_user, 'pg_read_all_stats', 'usage') or has_tablespace_privilege(oid, 'create')
                 or oid = (select dattablespace from pg_database where datname = current_database())
            then cast(pg_tablespace_size(oid) as float8) end                               as bytes
  from pg_tablespace
 where spcname <> 'pg_global'
 order by 2 desc nulls last, 1

-- Where does the server keep this database, if this role may know?
-- binds: none
-- columns: data_directory text, tablespace text, unix_socket bool
-- needs: PostgreSQL >= 13, pg_read_all_settings
select coalesce((select setting from pg_settings where name = 'data_directory'), '')          as data_directory,
       coalesce(pg_tablespace_location(coalesce((select oid from pg_tablespace where spcname = nullif(current_setting('default_tablespace'), '')), d.dattablespace)), '') as tablespace,
       inet_server_addr() is null                                                              as unix_socket
  from pg_database as d
 where d.datname = current_database()

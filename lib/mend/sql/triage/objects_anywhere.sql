-- Which of these objects are there, in whatever schema?
-- binds: kinds text[], tables text[], names text[]
-- columns: kind text, table_name text, name text, present bool
-- needs: PostgreSQL >= 13
select w.kind                                                         as kind,
       w.table_name                                                   as table_name,
       w.name                                                         as name,
       exists (
           select 1
             from pg_class as c
             join pg_namespace as n on n.oid = c.relnamespace
            where c.relname = case w.kind when 'column' then w.table_name else w.name end
              and n.nspname !~ '^pg_'
              and (w.kind <> 'column' or exists (
                      select 1
                        from pg_attribute as a
                       where a.attrelid = c.oid
                         and a.attname = w.name
                         and a.attnum > 0
                         and not a.attisdropped)))                    as present
  from unnest(cast(:kinds as text[]), cast(:tables as text[]), cast(:names as text[])) as w (kind, table_name, name)

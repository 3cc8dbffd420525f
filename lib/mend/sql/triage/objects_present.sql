-- Which of these objects are there already?
-- binds: kinds text[], tables text[], names text[]
-- columns: kind text, table_name text, name text, present bool
-- needs: PostgreSQL >= 13
select w.kind                                                         as kind,
       w.table_name                                                   as table_name,
       w.name                                                         as name,
       case w.kind
           when 'column' then exists (
               select 1
                 from pg_attribute as a
                where a.attrelid = to_regclass(w.table_name)
                  and a.attname = w.name
                  and a.attnum > 0
                  and not a.attisdropped)
           when 'type' then to_regtype(w.name) is not null
           else to_regclass(w.name) is not null
       end                                                            as present
  from unnest(cast(:kinds as text[]), cast(:tables as text[]), cast(:names as text[])) as w (kind, table_name, name)

-- How do the values of a type lie on disk, and those that it is made of?
-- binds: type int8 (oid)
-- columns: type int8, form text, length int4 (bytes), align int4 (bytes), part int8
-- needs: PostgreSQL >= 13

-- The function that prints a value says how it lies: types that share it share that. '' where it is not known to mend.
with recursive made_of as (
    select cast(cast(:type as int8) as oid) as oid
    union
    select part.oid
      from made_of as m
      join pg_type as t on t.oid = m.oid
      cross join lateral (
        select t.typelem as oid where t.typelem <> 0 and t.typlen = -1
        union all select t.typbasetype where t.typbasetype <> 0
        union all select r.rngsubtype from pg_range as r where r.rngtypid = t.oid) as part
)
select cast(t.oid as int8)                                                  as type,
       case when t.typtype = 'd' then 'domain'
            when l.lanname <> 'internal' or t.typtype not in ('b', 'e', 'r') then ''
            when p.prosrc = 'nameout' then 'name'
            when t.typlen > 0 then 'fixed'
            when p.prosrc in ('textout', 'varcharout', 'bpcharout', 'json_out') then 'text'
            when p.prosrc = 'byteaout' then 'bytes'
            when p.prosrc = 'numeric_out' then 'numeric'
            when p.prosrc = 'jsonb_out' then 'jsonb'
            when p.prosrc in ('inet_out', 'cidr_out') then 'inet'
            when p.prosrc in ('bit_out', 'varbit_out') then 'bits'
            when p.prosrc = 'array_out' then 'array'
            when p.prosrc = 'range_out' then 'range'
            else '' end                                                     as form,
       cast(t.typlen as int4)                                               as length,
       case t.typalign when 'c' then 1 when 's' then 2 when 'i' then 4 else 8 end as align,
       cast(coalesce(nullif(t.typbasetype, 0), r.rngsubtype, case when t.typlen = -1 then t.typelem end, 0) as int8) as part
  from pg_type as t
  join made_of as m on m.oid = t.oid
  join pg_proc as p on p.oid = t.typoutput
  join pg_language as l on l.oid = p.prolang
  left join pg_range as r on r.rngtypid = t.oid

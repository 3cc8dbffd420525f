-- How wide are the values of these columns, by the server's own statistics, and how large is what lies out of line?
-- binds: relations text[]
-- columns: relation text, column_name text, width_bytes int4 (bytes), null_share float8, toast_bytes int8 (bytes)
-- needs: PostgreSQL >= 13
with recursive tree as (
    select name, cast(to_regclass(name) as oid) as relid
      from unnest(cast(:relations as text[])) as name
     where to_regclass(name) is not null
     union
    select tree.name, i.inhrelid from tree join pg_inherits as i on i.inhparent = tree.relid
), toasts as (
    select tree.name, cast(sum(case when c.reltoastrelid = 0 then 0 else pg_total_relation_size(c.reltoastrelid) end) as int8) as toast_bytes
      from tree join pg_class as c on c.oid = tree.relid
     group by tree.name
)
select t.name                                                                        as relation,
       quote_ident(a.attname)                                                        as column_name,
       cast(max(coalesce(s.avg_width, 32)) as int4)                                  as width_bytes,
       cast(min(coalesce(s.null_frac, 0)) as float8)                                 as null_share,
       case when bool_or(a.attlen < 0) then max(z.toast_bytes) else 0 end            as toast_bytes
  from tree as t
  join toasts as z on z.name = t.name
  join pg_class as c on c.oid = t.relid
  join pg_namespace as n on n.oid = c.relnamespace
  join pg_attribute as a on a.attrelid = t.relid and a.attnum > 0 and not a.attisdropped
  left join pg_stats as s on s.schemaname = n.nspname and s.tablename = c.relname and s.attname = a.attname
 group by t.name, a.attname
 order by 1, 2

-- What are the columns of this table, and what may be written into them?
-- binds: relation text
-- columns: name text, type text, is_text bool, length int4 (characters), nullable bool, computed bool, folds bool
-- needs: PostgreSQL >= 13
select quote_ident(a.attname)                                                      as name,
       format_type(a.atttypid, a.atttypmod)                                        as type,
       t.typcategory = 'S'                                                         as is_text,
       case when coalesce(nullif(t.typbasetype, 0), t.oid) in (cast('varchar' as regtype), cast('bpchar' as regtype))
            then greatest(a.atttypmod, t.typtypmod, 4) - 4 else 0 end              as length,
       not a.attnotnull and not t.typnotnull                                       as nullable,
       a.attgenerated <> '' or a.attidentity = 'a'                                 as computed,
       coalesce(not k.collisdeterministic, false) or t.typname = 'citext'
       or coalesce(b.typname = 'citext', false)                                    as folds
  from pg_attribute as a
  join pg_type as t on t.oid = a.atttypid
  left join pg_type as b on b.oid = t.typbasetype
  left join pg_collation as k on k.oid = a.attcollation
 where a.attrelid = to_regclass(cast(:relation as text))
   and a.attnum > 0
   and not a.attisdropped
 order by a.attnum

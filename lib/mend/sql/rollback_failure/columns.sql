-- In which order do these tables have their columns?
-- binds: relations text[]
-- columns: relation text, columns text[]
-- needs: PostgreSQL >= 13
select w.relation                                                     as relation,
       array_agg(quote_ident(a.attname) order by a.attnum)            as columns
  from unnest(cast(:relations as text[])) as w (relation)
  join pg_attribute as a on a.attrelid = to_regclass(w.relation) and a.attnum > 0 and not a.attisdropped
 group by w.relation
 order by 1

-- How does the catalog write these names?
-- binds: names text[]
-- columns: name text, quoted text
-- needs: PostgreSQL >= 13
select n                                                                as name,
       quote_ident(n)                                                   as quoted
  from unnest(cast(:names as text[])) as n

-- Which roles does this server have?
-- binds: none
-- columns: role text
-- needs: PostgreSQL >= 13
select cast(rolname as text) as role from pg_roles where not starts_with(rolname, 'pg_') order by 1

-- As which roles may this session drop, make and hand over objects?
-- binds: none
-- columns: role text
-- needs: PostgreSQL >= 13
select quote_ident(rolname) as role
  from pg_catalog.pg_roles
 where pg_has_role(current_user, oid, 'usage') and pg_has_role(current_user, oid, 'member')
 order by 1

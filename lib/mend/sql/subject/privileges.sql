-- May this role change the rows of these tables, and does it own them?
-- binds: relations text[]
-- columns: relation text, may_update bool, may_delete bool, owns bool
-- needs: PostgreSQL >= 13
select name                                                                        as relation,
       has_any_column_privilege(c.oid, 'update')                                   as may_update,
       has_table_privilege(c.oid, 'delete')                                        as may_delete,
       pg_has_role(c.relowner, 'usage')                                            as owns
  from unnest(cast(:relations as text[])) as name
  join pg_class as c on c.oid = to_regclass(name)
 order by 1

-- Everything that a migration makes, as text, whatever the order in which it was made.
WITH ours AS (
    SELECT c.*, c.oid::regclass::text AS name FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace
), granted AS (
    SELECT 'table ' || c.name AS what, c.relacl AS acl FROM ours c WHERE c.relacl IS NOT NULL
    UNION ALL
    SELECT 'column ' || c.name || '.' || a.attname, a.attacl
    FROM ours c JOIN pg_attribute a ON a.attrelid = c.oid WHERE a.attacl IS NOT NULL
    UNION ALL
    SELECT 'function ' || p.oid::regprocedure, COALESCE(p.proacl, acldefault('f', p.proowner))
    FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'schema ' || n.nspname, n.nspacl FROM pg_namespace n WHERE n.nspname = 'public'
    UNION ALL
    SELECT 'default ' || d.defaclrole::regrole || ' ' || d.defaclobjtype::text, d.defaclacl
    FROM pg_default_acl d
)
SELECT concat_ws(' | ', 'relation', c.name, c.relkind, c.relowner::regrole, c.relrowsecurity,
                 c.relforcerowsecurity, c.reloptions, pg_get_viewdef(c.oid)) AS line
FROM ours c WHERE c.relkind <> 'i'
UNION ALL
SELECT concat_ws(' | ', 'column', c.name, a.attname, format_type(a.atttypid, a.atttypmod),
                 a.attnotnull, a.attgenerated, a.attcollation::regcollation,
                 pg_get_expr(d.adbin, d.adrelid))
FROM ours c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
UNION ALL
SELECT concat_ws(' | ', 'constraint', n.conrelid::regclass, n.conname, pg_get_constraintdef(n.oid))
FROM pg_constraint n WHERE n.connamespace = 'public'::regnamespace
UNION ALL
SELECT concat_ws(' | ', 'index', pg_get_indexdef(c.oid)) FROM ours c WHERE c.relkind = 'i'
UNION ALL
SELECT concat_ws(' | ', 'trigger', t.tgenabled, pg_get_triggerdef(t.oid))
FROM pg_trigger t JOIN ours c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
UNION ALL
SELECT concat_ws(' | ', 'policy', p.tablename, p.policyname, p.permissive, p.roles, p.cmd, p.qual,
                 p.with_check)
FROM pg_policies p WHERE p.schemaname = 'public'
UNION ALL
SELECT concat_ws(' | ', 'function', p.proowner::regrole, pg_get_functiondef(p.oid))
FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
UNION ALL
SELECT concat_ws(' | ', 'comment', c.name, a.attname, d.description)
FROM pg_description d JOIN ours c ON d.classoid = 'pg_class'::regclass AND d.objoid = c.oid
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0
UNION ALL
SELECT concat_ws(' | ', 'granted', g.what, x.grantee::regrole, x.privilege_type, x.is_grantable)
FROM granted g CROSS JOIN LATERAL aclexplode(g.acl) x
ORDER BY 1

-- name: put_policy
INSERT INTO egress_policies (tenant_id, name, rules) VALUES (app_tenant(), %(name)s, %(rules)s)
ON CONFLICT (tenant_id, name) DO UPDATE SET rules = excluded.rules, updated_at = now()
RETURNING name, rules, updated_at;

-- name: get_policy
SELECT name, rules, updated_at FROM egress_policies
WHERE tenant_id = app_tenant() AND name = %(name)s;

-- name: list_policies
SELECT name, rules, updated_at FROM egress_policies WHERE tenant_id = app_tenant() ORDER BY name;

-- name: delete_policy
DELETE FROM egress_policies WHERE tenant_id = app_tenant() AND name = %(name)s;

-- name: insert
INSERT INTO projects (tenant_id, name, description, egress_policy, created_by)
VALUES (app_tenant(), %(name)s, %(description)s, %(egress_policy)s, %(created_by)s)
ON CONFLICT DO NOTHING
RETURNING name, description, egress_policy, created_by, created_at, updated_at;

-- name: get
SELECT name, description, egress_policy, created_by, created_at, updated_at FROM projects
WHERE tenant_id = app_tenant() AND name = %(name)s;

-- name: list
SELECT name, description, egress_policy, created_by, created_at, updated_at FROM projects
WHERE tenant_id = app_tenant() AND (%(after)s::text IS NULL OR name > %(after)s)
ORDER BY name LIMIT %(limit)s;

-- name: update
UPDATE projects
SET description = %(description)s, egress_policy = %(egress_policy)s, updated_at = now()
WHERE tenant_id = app_tenant() AND name = %(name)s
RETURNING name, description, egress_policy, created_by, created_at, updated_at;

-- name: delete
DELETE FROM projects WHERE tenant_id = app_tenant() AND name = %(name)s;

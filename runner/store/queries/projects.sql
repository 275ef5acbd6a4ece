-- part: columns
name, description, egress_policy, created_by, created_at, updated_at

-- name: insert
INSERT INTO projects (tenant_id, name, description, egress_policy, created_by)
VALUES (app_tenant(), %(name)s, %(description)s, %(egress_policy)s, %(created_by)s)
ON CONFLICT DO NOTHING
RETURNING {columns};

-- name: get
SELECT {columns} FROM projects
WHERE tenant_id = app_tenant() AND name = %(name)s;

-- name: list
SELECT {columns} FROM projects
WHERE tenant_id = app_tenant() AND (%(after)s::text IS NULL OR name > %(after)s)
ORDER BY name LIMIT %(limit)s;

-- name: update
UPDATE projects
SET description = %(description)s, egress_policy = %(egress_policy)s, updated_at = now()
WHERE tenant_id = app_tenant() AND name = %(name)s
RETURNING {columns};

-- name: delete
DELETE FROM projects WHERE tenant_id = app_tenant() AND name = %(name)s;

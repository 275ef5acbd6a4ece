-- name: put
INSERT INTO secrets (tenant_id, name, sealed) VALUES (app_tenant(), %(name)s, %(sealed)s)
-- Not `excluded.sealed`: naming it needs the right to read the column.
ON CONFLICT (tenant_id, name) DO UPDATE
SET sealed = %(sealed)s, updated_at = clock_timestamp()
RETURNING name, created_at, updated_at;

-- name: sealed
SELECT sealed FROM secrets WHERE tenant_id = app_tenant() AND name = %(name)s;

-- name: list
SELECT name, created_at, updated_at FROM secrets WHERE tenant_id = app_tenant() ORDER BY name;

-- name: delete
DELETE FROM secrets WHERE tenant_id = app_tenant() AND name = %(name)s;

-- name: get_key
SELECT tenant_id, kek_id, wrapped FROM secret_keys WHERE tenant_id = app_tenant();

-- name: add_key
INSERT INTO secret_keys (tenant_id, kek_id, wrapped)
VALUES (app_tenant(), %(kek_id)s, %(wrapped)s) ON CONFLICT DO NOTHING;

-- name: keys_not_under
SELECT tenant_id, kek_id, wrapped FROM secret_keys_not_under(%(kek_id)s);

-- name: rewrap
UPDATE secret_keys SET kek_id = %(kek_id)s, wrapped = %(wrapped)s
WHERE tenant_id = app_tenant() AND kek_id = %(before)s;

-- name: find
SELECT find_tenant(%(name)s) AS tenant_id;

-- name: insert
INSERT INTO tenants (tenant_id, name, max_concurrency, max_limits, required_isolation)
VALUES (%(tenant_id)s, %(name)s, %(max_concurrency)s, %(max_limits)s, %(required_isolation)s);

-- name: get
SELECT tenant_id, name, max_concurrency, max_limits, required_isolation FROM tenants
WHERE tenant_id = app_tenant();

-- name: insert_key
INSERT INTO api_keys (key_id, tenant_id, prefix, hash, role, name)
VALUES (%(key_id)s, app_tenant(), %(prefix)s, %(hash)s, %(role)s, %(name)s);

-- name: find_key
SELECT tenant_id, key_id, role, hash FROM find_api_key(%(prefix)s);

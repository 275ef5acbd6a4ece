-- name: reserve
INSERT INTO idempotency_keys (tenant_id, key, request_hash, execution_id, sandbox_id, object_key)
VALUES (app_tenant(), %(key)s, %(request_hash)s, %(execution_id)s, %(sandbox_id)s, %(object_key)s)
ON CONFLICT DO NOTHING;

-- name: find
SELECT request_hash, execution_id, sandbox_id, object_key
FROM idempotency_keys WHERE key = %(key)s;

-- name: release
DELETE FROM idempotency_keys
WHERE tenant_id = app_tenant() AND key = %(key)s
  AND (sandbox_id = %(sandbox_id)s OR object_key = %(object_key)s);

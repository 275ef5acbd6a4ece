-- name: insert
INSERT INTO receipts (tenant_id, execution_id, document)
VALUES (app_tenant(), %(execution_id)s, %(document)s);

-- name: get
SELECT document FROM receipts
WHERE tenant_id = app_tenant() AND execution_id = %(execution_id)s;

-- name: publish_key
INSERT INTO signing_keys (key_id, public_key) VALUES (%(key_id)s, %(public_key)s)
ON CONFLICT DO NOTHING;

-- name: list_keys
SELECT key_id, public_key FROM signing_keys ORDER BY published_at, key_id;

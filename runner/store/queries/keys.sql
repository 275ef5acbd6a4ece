-- part: columns
key_id, prefix, name, role, permissions, networks::text[] AS networks, created_by, created_at,
expires_at, revoked_at, last_used_at, replaced_by

-- name: insert
INSERT INTO api_keys (key_id, tenant_id, prefix, hash, role, name, permissions, networks,
                      expires_at, created_by)
VALUES (%(key_id)s, app_tenant(), %(prefix)s, %(hash)s, %(role)s, %(name)s, %(permissions)s,
        %(networks)s::cidr[], %(expires_at)s, %(created_by)s);

-- name: find
SELECT tenant_id, key_id, role, hash, permissions, networks, tier, suspended,
       COALESCE(unused_for > interval '1 minute', true) AS unused
FROM find_api_key(%(prefix)s);

-- name: used
UPDATE api_keys SET last_used_at = now() WHERE key_id = %(key_id)s;

-- name: get
SELECT {columns}
FROM api_keys WHERE key_id = %(key_id)s;

-- name: lock
SELECT {columns}
FROM api_keys WHERE key_id = %(key_id)s FOR UPDATE;

-- name: list
SELECT {columns}
FROM api_keys
WHERE tenant_id = app_tenant() AND (%(before)s::uuid IS NULL OR key_id < %(before)s)
ORDER BY key_id DESC LIMIT %(limit)s;

-- name: usable
SELECT count(*) AS keys FROM api_keys
WHERE tenant_id = app_tenant() AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- name: replace
UPDATE api_keys
SET replaced_by = %(by)s,
    expires_at = LEAST(COALESCE(expires_at, 'infinity'), now() + %(overlap)s)
WHERE key_id = %(key_id)s;

-- name: standing
SELECT id, role, suspended
FROM rights_that_stand(%(keys)s, %(logins)s, %(tenants)s, %(idle)s);

-- name: hold_key
SELECT key_id, prefix, name, role, permissions, networks::text[] AS networks, created_by,
       created_at, expires_at, revoked_at, last_used_at, replaced_by
FROM api_keys
WHERE key_id = %(key_id)s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
FOR NO KEY UPDATE;

-- name: hold_member
SELECT role FROM memberships WHERE tenant_id = app_tenant() AND user_id = %(user_id)s FOR SHARE;

-- name: end_alone
UPDATE api_keys SET revoked_at = now() WHERE key_id = %(key_id)s AND revoked_at IS NULL;

-- name: end
WITH RECURSIVE over AS (
    SELECT key_id, prefix FROM api_keys
    WHERE tenant_id = app_tenant()
      AND (key_id = %(key_id)s OR (created_by = %(maker)s AND role = ANY (%(keys)s)))
    UNION
    -- Two branches instead of an OR, so that each uses an index of its own.
    SELECT k.key_id, k.prefix FROM over o CROSS JOIN LATERAL (
        SELECT key_id, prefix FROM api_keys
        WHERE tenant_id = app_tenant() AND created_by = 'key:' || o.prefix
        UNION ALL
        SELECT key_id, prefix FROM api_keys
        WHERE tenant_id = app_tenant() AND replaced_by = o.key_id
    ) k
    WHERE k.key_id IS DISTINCT FROM %(spared)s
), revoked AS (
    UPDATE api_keys SET revoked_at = now()
    WHERE key_id IN (SELECT key_id FROM over) AND revoked_at IS NULL
    RETURNING 1
), taken_back AS (
    DELETE FROM invitations
    WHERE tenant_id = app_tenant()
      AND ((created_by = %(maker)s AND role = ANY (%(invitations)s))
           OR created_by IN (SELECT 'key:' || prefix FROM over))
    RETURNING 1
), closed AS (
    DELETE FROM sandbox_ports
    WHERE tenant_id = app_tenant()
      AND opened_by IN (SELECT 'key:' || prefix FROM over
                        UNION ALL SELECT %(maker)s::text WHERE %(ports)s)
    RETURNING 1
)
SELECT (SELECT count(*) FROM revoked) AS keys, (SELECT count(*) FROM taken_back) AS invitations,
       (SELECT count(*) FROM closed) AS ports;

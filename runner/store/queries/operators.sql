-- name: insert
INSERT INTO operators (operator_id, name, prefix, hash, expires_at)
VALUES (%(operator_id)s, %(name)s, %(prefix)s, %(hash)s, %(expires_at)s);

-- name: find
SELECT operator_id, hash,
       COALESCE(now() - last_used_at > interval '1 minute', true) AS unused
FROM operators
WHERE prefix = %(prefix)s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- name: used
UPDATE operators SET last_used_at = now() WHERE operator_id = %(operator_id)s;

-- name: list
SELECT operator_id, name, prefix, created_at, expires_at, revoked_at, last_used_at FROM operators
ORDER BY operator_id;

-- name: revoke
UPDATE operators SET revoked_at = now() WHERE prefix = %(prefix)s AND revoked_at IS NULL;

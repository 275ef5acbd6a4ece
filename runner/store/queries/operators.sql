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

-- name: insert_session
INSERT INTO operator_sessions (session_id, operator_id, hash, expires_at)
VALUES (%(session_id)s, %(operator_id)s, %(hash)s, now() + %(lifetime)s);

-- name: find_session
SELECT s.session_id, s.operator_id, o.prefix,
       now() - s.last_used_at > least(interval '1 minute', %(idle)s::interval / 10) AS unused
FROM operator_sessions s JOIN operators o USING (operator_id)
WHERE s.hash = %(hash)s AND s.ended_at IS NULL AND s.expires_at > now()
  AND s.last_used_at > now() - %(idle)s::interval
  AND o.revoked_at IS NULL AND (o.expires_at IS NULL OR o.expires_at > now());

-- name: standing
SELECT operator_id AS id FROM operators
WHERE operator_id = ANY (%(keys)s::uuid[])
  AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
UNION ALL
SELECT s.session_id FROM operator_sessions s JOIN operators o USING (operator_id)
WHERE s.session_id = ANY (%(sessions)s::uuid[]) AND s.ended_at IS NULL AND s.expires_at > now()
  AND s.last_used_at > now() - %(idle)s::interval
  AND o.revoked_at IS NULL AND (o.expires_at IS NULL OR o.expires_at > now());

-- name: sessions
SELECT session_id, created_at, last_used_at, expires_at FROM operator_sessions
WHERE operator_id = %(operator_id)s AND ended_at IS NULL AND expires_at > now()
  AND last_used_at > now() - %(idle)s::interval
ORDER BY session_id DESC;

-- name: end_one_session
UPDATE operator_sessions SET ended_at = now()
WHERE operator_id = %(operator_id)s AND session_id = %(session_id)s
  AND ended_at IS NULL AND expires_at > now() AND last_used_at > now() - %(idle)s::interval;

-- name: used_session
UPDATE operator_sessions SET last_used_at = now() WHERE session_id = %(session_id)s;

-- name: end_session
UPDATE operator_sessions SET ended_at = now() WHERE hash = %(hash)s AND ended_at IS NULL;

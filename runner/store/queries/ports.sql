-- name: hold_sandbox
SELECT state, reason, detail FROM sandboxes WHERE sandbox_id = %(sandbox_id)s
FOR NO KEY UPDATE;

-- name: forget_expired
DELETE FROM sandbox_ports WHERE sandbox_id = %(sandbox_id)s AND expires_at <= now();

-- name: others
SELECT count(*) AS ports FROM sandbox_ports
WHERE sandbox_id = %(sandbox_id)s AND port <> %(port)s;

-- name: open
INSERT INTO sandbox_ports (tenant_id, sandbox_id, port, public, token_hash, opened_by, expires_at)
VALUES (app_tenant(), %(sandbox_id)s, %(port)s, %(public)s, %(token_hash)s, %(opened_by)s,
        LEAST(now() + make_interval(secs => %(lasts_s)s), %(ends_at)s::timestamptz))
RETURNING port, public, opened_by, opened_at, expires_at;

-- name: list
SELECT port, public, opened_by, opened_at, expires_at FROM sandbox_ports
WHERE sandbox_id = %(sandbox_id)s AND expires_at > now() ORDER BY port;

-- name: close
DELETE FROM sandbox_ports WHERE sandbox_id = %(sandbox_id)s AND port = %(port)s;

-- name: find
SELECT tenant_id, token_hash, expires_at, tier FROM find_sandbox_port(%(sandbox_id)s, %(port)s);

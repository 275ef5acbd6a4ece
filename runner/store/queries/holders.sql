-- name: add
WITH held AS (
    SELECT prefix FROM sandbox_holders h JOIN api_keys k USING (tenant_id, prefix)
    WHERE h.sandbox_id = %(sandbox_id)s AND k.revoked_at IS NULL
      AND (k.expires_at IS NULL OR k.expires_at > now())
), added AS (
    INSERT INTO sandbox_holders (tenant_id, sandbox_id, prefix)
    SELECT app_tenant(), %(sandbox_id)s, %(prefix)s
    WHERE (SELECT count(*) FROM held) < %(most)s ON CONFLICT DO NOTHING
)
SELECT count(*) >= %(most)s AND NOT bool_or(prefix = %(prefix)s) AS is_full FROM held;

-- name: of
SELECT prefix FROM token_holders_of(%(sandbox_id)s);

-- name: search
SELECT find_token_holders(%(limit)s, %(each)s) AS found;

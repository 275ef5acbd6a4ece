-- name: append
INSERT INTO audit_events (tenant_id, body) VALUES (app_tenant(), %(body)s) RETURNING seq, hash;

-- name: list
SELECT seq, body, hash FROM audit_events
WHERE tenant_id = app_tenant() AND seq > %(after)s
  AND (%(action)s::text IS NULL OR action = %(action)s)
  AND (%(actor)s::text IS NULL OR actor = %(actor)s)
  AND (%(outcome)s::text IS NULL OR outcome = %(outcome)s)
  AND (%(resource_id)s::text IS NULL OR resource_id = %(resource_id)s)
  AND (%(since)s::text IS NULL OR at >= %(since)s)
  AND (%(until)s::text IS NULL OR at < %(until)s)
ORDER BY seq LIMIT %(limit)s;

-- name: chain
SELECT seq, body, previous_hash, hash FROM audit_events
WHERE tenant_id = app_tenant() AND seq > %(after)s ORDER BY seq LIMIT %(limit)s;

-- name: head
SELECT seq, hash FROM audit_heads WHERE tenant_id = app_tenant();

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

-- name: of_resource
SELECT seq, body, hash FROM audit_events
WHERE tenant_id = app_tenant() AND resource_id = %(resource_id)s
  AND resource_type = %(resource_type)s AND seq > %(after)s
ORDER BY seq LIMIT %(limit)s;

-- name: newest_of_resource
SELECT seq, body, hash, count(*) OVER () AS total FROM audit_events
WHERE tenant_id = app_tenant() AND resource_id = %(resource_id)s
  AND resource_type = %(resource_type)s AND action = ANY (%(actions)s::text[])
ORDER BY seq DESC LIMIT %(limit)s;

-- name: newest_of_life
-- The actions are those of the index audit_events_lives, which is used for no others.
SELECT seq, body, hash, count(*) OVER () AS total FROM audit_events
WHERE tenant_id = app_tenant() AND resource_id = %(resource_id)s
  AND action IN ('sandbox:kill', 'sandbox:pause', 'sandbox:resume', 'sandbox:start')
ORDER BY seq DESC LIMIT %(limit)s;

-- name: list_newest
SELECT seq, body, hash FROM audit_events
WHERE tenant_id = app_tenant() AND seq < %(before)s
  AND (%(action)s::text IS NULL OR action = %(action)s)
  AND (%(actor)s::text IS NULL OR actor = %(actor)s)
  AND (%(outcome)s::text IS NULL OR outcome = %(outcome)s)
  AND (%(resource_id)s::text IS NULL OR resource_id = %(resource_id)s)
  AND (%(since)s::text IS NULL OR at >= %(since)s)
  AND (%(until)s::text IS NULL OR at < %(until)s)
ORDER BY seq DESC LIMIT %(limit)s;

-- name: chain
SELECT seq, body, previous_hash, hash FROM audit_events
WHERE tenant_id = app_tenant() AND seq > %(after)s AND seq <= %(last)s
ORDER BY seq LIMIT %(limit)s;

-- name: unsealed
SELECT audit_unsealed_s() AS seconds;

-- name: forwarding_lag
SELECT sink, seconds FROM audit_undelivered();

-- name: hash
SELECT hash FROM audit_events WHERE tenant_id = app_tenant() AND seq = %(seq)s;

-- name: ends
-- Where the chain must end, and where it does end, both read at one moment.
SELECT h.seq, h.hash, l.last
FROM (SELECT max(seq) AS last FROM audit_events WHERE tenant_id = app_tenant()) l
LEFT JOIN audit_heads h ON h.tenant_id = app_tenant();

-- name: chains_due
SELECT tenant_id FROM audit_chains_due(%(age)s, %(except_)s, %(limit)s) AS due (tenant_id);

-- name: newest_checkpoint
SELECT seq, document FROM audit_checkpoints
WHERE tenant_id = app_tenant() ORDER BY seq DESC LIMIT 1;

-- name: add_checkpoint
INSERT INTO audit_checkpoints (tenant_id, seq, document)
VALUES (app_tenant(), %(seq)s, %(document)s) ON CONFLICT DO NOTHING;

-- name: put_webhook
INSERT INTO audit_webhooks (tenant_id, url, sealed) VALUES (app_tenant(), %(url)s, %(sealed)s)
-- Not `excluded.sealed`: naming it needs the right to read the column.
ON CONFLICT (tenant_id) DO UPDATE
SET url = %(url)s, sealed = %(sealed)s, updated_at = clock_timestamp();

-- name: get_webhook
SELECT w.url, w.created_at, w.updated_at, c.seq AS delivered_seq, c.failures, c.problem,
       CASE WHEN c.failures > 0 THEN c.due_at END AS retry_at
FROM audit_webhooks w JOIN audit_cursors c USING (tenant_id)
WHERE w.tenant_id = app_tenant() AND c.sink = 'tenant';

-- name: delete_webhook
DELETE FROM audit_webhooks WHERE tenant_id = app_tenant();

-- name: sealed_webhook
SELECT url, sealed FROM audit_webhooks WHERE tenant_id = app_tenant();

-- name: begin_cursor
-- A new cursor begins after the last record; the record of this change is written later.
INSERT INTO audit_cursors (tenant_id, sink, seq)
VALUES (app_tenant(), 'tenant',
        COALESCE((SELECT seq FROM audit_heads WHERE tenant_id = app_tenant()), 0))
ON CONFLICT (tenant_id, sink) DO UPDATE SET due_at = now(), failures = 0, problem = NULL;

-- name: delete_cursor
DELETE FROM audit_cursors WHERE tenant_id = app_tenant() AND sink = 'tenant';

-- name: claim_delivery
SELECT tenant_id, seq, failures, claim FROM claim_audit_delivery(%(sink)s, %(lease)s);

-- name: delivered
UPDATE audit_cursors SET seq = %(seq)s, due_at = now(), claim = NULL, failures = 0, problem = NULL
WHERE tenant_id = app_tenant() AND sink = %(sink)s AND claim = %(claim)s AND seq < %(seq)s;

-- name: undelivered
UPDATE audit_cursors
SET due_at = now() + %(wait)s, claim = NULL, failures = failures + 1, problem = %(problem)s
WHERE tenant_id = app_tenant() AND sink = %(sink)s AND claim = %(claim)s;

-- name: export
SELECT seq, body, previous_hash, hash FROM audit_events
WHERE tenant_id = app_tenant() AND seq > %(after)s AND seq <= %(upto)s
  AND (%(action)s::text IS NULL OR action = %(action)s)
  AND (%(actor)s::text IS NULL OR actor = %(actor)s)
  AND (%(outcome)s::text IS NULL OR outcome = %(outcome)s)
  AND (%(resource_id)s::text IS NULL OR resource_id = %(resource_id)s)
  AND (%(since)s::text IS NULL OR at >= %(since)s)
  AND (%(until)s::text IS NULL OR at < %(until)s)
ORDER BY seq LIMIT %(limit)s;

-- name: insert
INSERT INTO receipts (tenant_id, execution_id, document)
VALUES (app_tenant(), %(execution_id)s, %(document)s);

-- name: get
SELECT document FROM receipts
WHERE tenant_id = app_tenant() AND execution_id = %(execution_id)s;

-- name: with_place
-- What the chain has in the place that each receipt names. A receipt is canonical JSON: this is
-- the one way of writing its `audit_head`, and no text inside a JSON string can look like it.
SELECT r.execution_id, r.document, e.seq, e.hash FROM receipts r
LEFT JOIN audit_events e ON e.tenant_id = r.tenant_id AND e.seq = substring(
    r.document FROM '"audit_head":\{"hash":"[0-9a-f]{64}","seq":([0-9]{1,18})\}')::bigint
WHERE r.tenant_id = app_tenant() AND r.execution_id > %(after)s
ORDER BY r.execution_id LIMIT %(limit)s;

-- name: contradicted
SELECT e.seq, r.execution_id FROM audit_events e
JOIN receipts r ON r.tenant_id = e.tenant_id AND r.execution_id =
    CASE WHEN e.resource_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
         THEN e.resource_id::uuid END
WHERE e.tenant_id = app_tenant() AND e.seq > %(after)s AND e.action = 'execution:end'
  AND strpos(r.document, '"audit_head":{"hash":"' || encode(e.hash, 'hex')
                         || '","seq":' || e.seq || '}') = 0
ORDER BY e.seq LIMIT 1;

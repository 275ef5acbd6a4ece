-- name: insert
INSERT INTO receipts (tenant_id, execution_id, document)
VALUES (app_tenant(), %(execution_id)s, %(document)s);

-- name: get
SELECT document FROM receipts
WHERE tenant_id = app_tenant() AND execution_id = %(execution_id)s;

-- name: with_place
-- Each receipt with the record at the place that it names. A receipt is canonical JSON, so there is
-- only one way to write its `audit_head`, and no text inside a JSON string can look like it.
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

-- name: insert_of_sandbox
INSERT INTO sandbox_receipts (tenant_id, sandbox_id, document)
VALUES (app_tenant(), %(sandbox_id)s, %(document)s);

-- name: get_of_sandbox
SELECT document FROM sandbox_receipts
WHERE tenant_id = app_tenant() AND sandbox_id = %(sandbox_id)s;

-- name: count_of_sandbox
-- Only what nodes write about it: a tenant's own words are in none of these records.
WITH told AS (
    SELECT action, outcome, body::jsonb -> 'metadata' AS facts FROM audit_events
    WHERE tenant_id = app_tenant() AND resource_id = %(sandbox_id)s::text
      AND resource_type = 'sandbox'
)
SELECT COALESCE(sum(jsonb_array_length(facts -> 'started'))
                FILTER (WHERE action = 'sandbox:processes'), 0)::bigint AS processes_started,
       COALESCE(sum(jsonb_array_length(facts -> 'ended'))
                FILTER (WHERE action = 'sandbox:processes'), 0)::bigint AS processes_ended,
       COALESCE(sum((facts ->> 'read')::bigint) FILTER (WHERE action = 'sandbox:files'), 0)::bigint
           AS files_read,
       COALESCE(sum((facts ->> 'written')::bigint) FILTER (WHERE action = 'sandbox:files'),
                0)::bigint AS files_written,
       COALESCE(sum((facts ->> 'bytes_read')::bigint) FILTER (WHERE action = 'sandbox:files'),
                0)::bigint AS bytes_read,
       COALESCE(sum((facts ->> 'bytes_written')::bigint) FILTER (WHERE action = 'sandbox:files'),
                0)::bigint AS bytes_written,
       count(*) FILTER (WHERE action = 'egress:connect' AND outcome = 'success') AS egress_allowed,
       count(*) FILTER (WHERE action = 'egress:connect' AND outcome = 'denied') AS egress_denied,
       count(*) FILTER (WHERE action = 'sandbox:pause') AS pauses
FROM told;

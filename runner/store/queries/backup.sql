-- name: sees_all
SELECT rolsuper OR rolbypassrls AS sees_all, rolsuper AS makes_roles FROM pg_roles
WHERE rolname = current_user;

-- name: relations
-- What the database holds already; `public` is empty before the first migration.
SELECT c.relname AS name FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v', 'm', 'S', 'p')
ORDER BY c.relname;

-- name: revision
SELECT version_num AS revision FROM alembic_version;

-- name: moment
SELECT pg_export_snapshot() AS snapshot, transaction_timestamp() AS at,
       current_setting('server_version_num')::integer / 10000 AS server,
       (SELECT relowner::regrole::text FROM pg_class WHERE oid = 'public.tenants'::regclass)
           AS owner;

-- name: server
SELECT current_setting('server_version_num')::integer / 10000 AS server;

-- name: contents
SELECT (SELECT count(*) FROM tenants) AS tenants,
       (SELECT count(*) FROM executions) AS executions,
       (SELECT count(*) FROM executions WHERE state = ANY (%(unended)s)) AS waiting,
       (SELECT count(*) FROM sandboxes WHERE state <> 'ended') AS sandboxes;

-- name: kept
-- The objects that rows refer to, in one order whatever the database's collation.
SELECT o.tenant_id, o.object_key, o.bytes FROM objects o
WHERE o.state = 'kept'
  AND (o.tenant_id, o.object_key COLLATE "C") > (%(tenant_id)s, %(object_key)s COLLATE "C")
ORDER BY o.tenant_id, o.object_key COLLATE "C" LIMIT %(limit)s;

-- name: kept_now
-- The same, each with the hash that a row has of its content; null if it is stored sealed.
SELECT o.tenant_id, o.object_key, o.bytes, COALESCE(
    (SELECT f.sha256 FROM files f
     WHERE f.tenant_id = o.tenant_id AND f.object_key = o.object_key LIMIT 1),
    (SELECT a.sha256 FROM artifacts a
     WHERE a.tenant_id = o.tenant_id AND a.object_key = o.object_key LIMIT 1),
    (SELECT i.sha256 FROM input_files i
     WHERE i.tenant_id = o.tenant_id AND i.object_key = o.object_key LIMIT 1)) AS sha256
FROM objects o
WHERE o.state = 'kept'
  AND (o.tenant_id, o.object_key COLLATE "C") > (%(tenant_id)s, %(object_key)s COLLATE "C")
ORDER BY o.tenant_id, o.object_key COLLATE "C" LIMIT %(limit)s;

-- name: chains
SELECT tenant_id, seq, hash FROM audit_heads
WHERE tenant_id > %(after)s AND seq > 0 ORDER BY tenant_id LIMIT %(limit)s;

-- name: tenant_name
SELECT name FROM tenants WHERE tenant_id = app_tenant();

-- name: checkpoints
SELECT c.seq, c.document, e.hash FROM audit_checkpoints c
LEFT JOIN audit_events e ON e.tenant_id = c.tenant_id AND e.seq = c.seq
WHERE c.tenant_id = app_tenant() AND c.seq > %(after)s ORDER BY c.seq LIMIT %(limit)s;

-- name: receipts
SELECT count(*) AS receipts FROM receipts WHERE tenant_id = app_tenant();

-- name: sandbox_receipts
-- As `receipts.with_place`, of sandboxes.
SELECT r.sandbox_id, r.document, e.hash FROM sandbox_receipts r
LEFT JOIN audit_events e ON e.tenant_id = r.tenant_id AND e.seq = substring(
    r.document FROM '"audit_head":\{"hash":"[0-9a-f]{64}","seq":([0-9]{1,18})\}')::bigint
WHERE r.tenant_id = app_tenant() AND r.sandbox_id > %(after)s
ORDER BY r.sandbox_id LIMIT %(limit)s;

-- name: waiting
SELECT execution_id FROM executions
WHERE tenant_id = app_tenant() AND state = ANY (%(unended)s) AND execution_id > %(after)s
ORDER BY execution_id LIMIT %(limit)s;

-- name: reserve
INSERT INTO objects (tenant_id, object_key, bytes)
VALUES (app_tenant(), %(object_key)s, %(bytes)s) ON CONFLICT DO NOTHING;

-- name: known
SELECT object_key FROM objects
WHERE tenant_id = app_tenant() AND object_key = ANY (%(object_keys)s);

-- name: standing
SELECT u.bytes, u.objects, u.snapshot_bytes AS of_snapshots, t.storage_bytes, t.stored_objects,
       t.snapshot_bytes
FROM tenant_quotas t LEFT JOIN storage_usage u USING (tenant_id) WHERE t.tenant_id = app_tenant();

-- name: written
SELECT EXTRACT(EPOCH FROM clock_timestamp() - since)::float8 AS seconds FROM objects
WHERE tenant_id = app_tenant() AND object_key = %(object_key)s AND state = 'writing';

-- name: keep
UPDATE objects SET state = 'kept', since = clock_timestamp()
WHERE tenant_id = app_tenant() AND object_key = ANY (%(object_keys)s) AND state = 'writing';

-- name: keep_as
SELECT keep_object_as(%(object_key)s, %(bytes)s) AS kept;

-- name: give_up
UPDATE objects SET state = 'doomed', since = clock_timestamp()
WHERE tenant_id = app_tenant() AND object_key = %(object_key)s AND state = 'writing';

-- name: take_removable
SELECT object_key, bytes FROM objects
WHERE tenant_id = app_tenant() AND state <> 'kept'
  AND since < now() - CASE state WHEN 'doomed' THEN %(grace)s::interval
                                 ELSE %(abandoned)s::interval END
ORDER BY since LIMIT %(limit)s FOR UPDATE SKIP LOCKED;

-- name: forget
DELETE FROM objects
WHERE tenant_id = app_tenant() AND object_key = ANY (%(object_keys)s) AND state <> 'kept';

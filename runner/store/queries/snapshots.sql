-- part: columns
snapshot_id, sandbox_id, name, metadata, created_by, created_at, image, size, resources,
isolation, bytes, sha256, sealed_key, object_key, expires_at

-- name: insert
INSERT INTO snapshots (tenant_id, snapshot_id, sandbox_id, name, metadata, created_by, image, size,
                       resources, isolation, bytes, sha256, sealed_key, object_key, expires_at)
SELECT app_tenant(), %(snapshot_id)s, %(sandbox_id)s, %(name)s, %(metadata)s, %(created_by)s,
       %(image)s, %(size)s, %(resources)s, %(isolation)s, %(bytes)s, %(sha256)s, %(sealed_key)s,
       %(object_key)s,
       -- Whichever is sooner; LEAST passes over what is null.
       LEAST(now() + make_interval(secs => %(lasts_s)s),
             now() + make_interval(days => NULLIF(q.snapshot_days, 0)))
FROM tenant_quotas q WHERE q.tenant_id = app_tenant()
RETURNING {columns};

-- name: get
SELECT {columns}
FROM snapshots WHERE tenant_id = app_tenant() AND snapshot_id = %(snapshot_id)s
  AND (expires_at IS NULL OR expires_at > now());

-- name: of_object
SELECT {columns}
FROM snapshots WHERE tenant_id = app_tenant() AND object_key = %(object_key)s
  AND (expires_at IS NULL OR expires_at > now());

-- name: list
SELECT {columns}
FROM snapshots
WHERE tenant_id = app_tenant() AND (%(before)s::uuid IS NULL OR snapshot_id < %(before)s)
  AND (%(of)s::uuid IS NULL OR sandbox_id = %(of)s)
  AND (%(name)s::text IS NULL OR name = %(name)s)
  AND (expires_at IS NULL OR expires_at > now())
ORDER BY snapshot_id DESC LIMIT %(limit)s;

-- name: delete
DELETE FROM snapshots WHERE tenant_id = app_tenant() AND snapshot_id = %(snapshot_id)s
RETURNING {columns};

-- part: columns
path, size, sha256, media_type, object_key, created_at, updated_at, expires_at

-- name: lock
SELECT {columns} FROM files
WHERE tenant_id = app_tenant() AND path = %(path)s
  AND (expires_at IS NULL OR expires_at > now())
FOR UPDATE;

-- name: put
INSERT INTO files AS f (tenant_id, path, size, sha256, media_type, object_key, expires_at)
VALUES (app_tenant(), %(path)s, %(size)s, %(sha256)s, %(media_type)s, %(object_key)s,
        %(expires_at)s)
ON CONFLICT (tenant_id, path) DO UPDATE
SET size = excluded.size, sha256 = excluded.sha256, media_type = excluded.media_type,
    object_key = excluded.object_key, updated_at = excluded.updated_at,
    -- A file that has expired but is not removed yet counts as absent.
    created_at = CASE WHEN f.expires_at <= now() THEN excluded.created_at ELSE f.created_at END,
    expires_at = excluded.expires_at
WHERE NOT %(only_new)s OR f.expires_at <= now()
RETURNING {columns};

-- name: get
SELECT {columns} FROM files
WHERE tenant_id = app_tenant() AND path = %(path)s
  AND (expires_at IS NULL OR expires_at > now());

-- name: hold
SELECT {columns} FROM files
WHERE tenant_id = app_tenant() AND path = ANY (%(paths)s)
  AND (expires_at IS NULL OR expires_at > now())
ORDER BY path FOR SHARE;

-- name: list
SELECT {columns} FROM files
WHERE tenant_id = app_tenant() AND path > %(after)s AND path >= %(prefix)s
  AND starts_with(path, %(prefix)s) AND (expires_at IS NULL OR expires_at > now())
ORDER BY path LIMIT %(limit)s;

-- name: delete
DELETE FROM files WHERE tenant_id = app_tenant() AND path = %(path)s;

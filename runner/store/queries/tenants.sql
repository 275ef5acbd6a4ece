-- part: columns
tenant_id, name, tier, max_concurrency, max_limits, required_isolation, egress_ceiling,
retention_days, quotas, reuse, suspended_at, suspended_why, created_at

-- name: find
SELECT find_tenant(%(name)s) AS tenant_id;

-- name: insert
INSERT INTO tenants (tenant_id, name, tier, max_concurrency, max_limits, required_isolation,
                     egress_ceiling, retention_days, quotas, reuse)
VALUES (%(tenant_id)s, %(name)s, %(tier)s, %(max_concurrency)s, %(max_limits)s,
        %(required_isolation)s, %(egress_ceiling)s, %(retention_days)s, %(quotas)s,
        %(reuse)s)
ON CONFLICT DO NOTHING;

-- name: get
SELECT {columns}
FROM tenants WHERE tenant_id = app_tenant();

-- name: list
SELECT {columns}
FROM tenants
WHERE (%(after)s::text IS NULL OR name > %(after)s)
  AND (%(part)s::text IS NULL OR strpos(name, %(part)s) > 0)
ORDER BY name LIMIT %(limit)s;

-- name: update
UPDATE tenants
SET tier = %(tier)s, max_concurrency = %(max_concurrency)s, max_limits = %(max_limits)s,
    required_isolation = %(required_isolation)s, egress_ceiling = %(egress_ceiling)s,
    retention_days = %(retention_days)s, quotas = %(quotas)s, reuse = %(reuse)s
WHERE tenant_id = app_tenant();

-- name: suspend
UPDATE tenants SET suspended_at = now(), suspended_why = %(why)s
WHERE tenant_id = app_tenant() AND suspended_at IS NULL;

-- name: resume
UPDATE tenants SET suspended_at = NULL, suspended_why = NULL
WHERE tenant_id = app_tenant() AND suspended_at IS NOT NULL;

-- name: active
SELECT (SELECT count(*) FROM executions
        WHERE tenant_id = app_tenant() AND state IN ('starting', 'running'))
     + (SELECT count(*) FROM sandboxes
        WHERE tenant_id = app_tenant() AND state <> 'ended') AS active;

-- name: shared
SELECT (SELECT count(*) FROM public_templates WHERE tenant_id = app_tenant()) AS public,
       others_build_on_ours() AS below_others;

-- name: head
SELECT seq, hash FROM audit_heads WHERE tenant_id = app_tenant();

-- name: erase
SELECT name, removed FROM erase_tenant();

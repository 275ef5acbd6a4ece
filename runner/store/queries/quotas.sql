-- name: publish
INSERT INTO tiers (tier, concurrent, queued, cpu_s_per_day, egress_bytes_per_day, storage_bytes,
                   stored_objects, max_size, weight, sandboxes, sandbox_memory_mb,
                   sandbox_hours_per_day, snapshot_bytes, snapshot_days, templates, template_bytes,
                   template_days)
VALUES (%(tier)s, %(concurrent)s, %(queued)s, %(cpu_s_per_day)s, %(egress_bytes_per_day)s,
        %(storage_bytes)s, %(stored_objects)s, %(max_size)s, %(weight)s, %(sandboxes)s,
        %(sandbox_memory_mb)s, %(sandbox_hours_per_day)s,
        %(snapshot_bytes)s, %(snapshot_days)s, %(templates)s, %(template_bytes)s,
        %(template_days)s)
ON CONFLICT (tier) DO UPDATE
SET concurrent = EXCLUDED.concurrent, queued = EXCLUDED.queued,
    cpu_s_per_day = EXCLUDED.cpu_s_per_day,
    egress_bytes_per_day = EXCLUDED.egress_bytes_per_day,
    storage_bytes = EXCLUDED.storage_bytes, stored_objects = EXCLUDED.stored_objects, max_size = EXCLUDED.max_size,
    weight = EXCLUDED.weight, sandboxes = EXCLUDED.sandboxes,
    sandbox_memory_mb = EXCLUDED.sandbox_memory_mb,
    sandbox_hours_per_day = EXCLUDED.sandbox_hours_per_day,
    snapshot_bytes = EXCLUDED.snapshot_bytes, snapshot_days = EXCLUDED.snapshot_days,
    templates = EXCLUDED.templates, template_bytes = EXCLUDED.template_bytes,
    template_days = EXCLUDED.template_days;

-- name: weigh
SELECT weigh_queues();

-- name: alone
SELECT take_submission_turn();

-- part: of_runs
t.tier, t.concurrent, t.queued, t.cpu_s_per_day, t.egress_bytes_per_day, t.storage_bytes,
t.stored_objects, t.max_size, t.weight, t.sandboxes, t.sandbox_memory_mb, t.sandbox_hours_per_day,
t.snapshot_bytes, t.snapshot_days, t.templates, t.template_bytes, t.template_days,
COALESCE(q.active, 0) AS used_active, COALESCE(q.waiting, 0) AS used_queued,
COALESCE(d.cpu_s, 0)::float8 AS used_cpu_s,
COALESCE(d.egress_bytes_up + d.egress_bytes_down, 0) AS used_egress_bytes,
COALESCE(s.bytes, 0) AS used_storage_bytes, COALESCE(s.objects, 0) AS used_stored_objects,
c.now, (c.day + 1)::timestamp AT TIME ZONE 'UTC' AS day_ends

-- part: counted
tenant_quotas t
CROSS JOIN (SELECT clock_timestamp() AS now,
                   (clock_timestamp() AT TIME ZONE 'UTC')::date AS day) c
LEFT JOIN queues q ON q.tenant_id = t.tenant_id
LEFT JOIN usage_days d ON d.tenant_id = t.tenant_id AND d.day = c.day
LEFT JOIN storage_usage s ON s.tenant_id = t.tenant_id

-- name: standing_of_runs
SELECT {of_runs} FROM {counted} WHERE t.tenant_id = app_tenant();

-- name: standing
SELECT {of_runs}, m.templates AS used_templates, m.bytes AS used_template_bytes,
       CASE WHEN t.template_days > 0 THEN m.untagged_at + make_interval(days => t.template_days)
            END AS templates_expire_at,
       (COALESCE(d.sandbox_wall_s, 0) / 3600)::float8 AS used_sandbox_hours,
       l.sandboxes AS used_sandboxes, l.memory_mb AS used_sandbox_memory_mb,
       l.end_at AS sandboxes_end_at,
       COALESCE(s.snapshot_bytes, 0) AS used_snapshot_bytes,
       (SELECT min(expires_at) FROM snapshots WHERE tenant_id = app_tenant()
        AND expires_at IS NOT NULL) AS snapshots_expire_at
FROM {counted}
CROSS JOIN (SELECT count(*) AS sandboxes,
                   COALESCE(sum((resources ->> 'memory_mb')::bigint), 0)::bigint AS memory_mb,
                   min(LEAST(CASE on_timeout WHEN 'kill' THEN expires_at END, lives_until))
                       AS end_at
            FROM sandboxes WHERE tenant_id = app_tenant() AND state <> 'ended') l
CROSS JOIN (SELECT count(*) FILTER (WHERE state = 'ready'
                                            OR state IN ('waiting', 'building') AND due_at > now())
                       AS templates,
                   COALESCE(sum(bytes), 0)::bigint AS bytes, min(untagged_at) AS untagged_at
            FROM templates WHERE tenant_id = app_tenant()) m
WHERE t.tenant_id = app_tenant();

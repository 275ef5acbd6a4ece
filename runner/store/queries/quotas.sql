-- name: publish
INSERT INTO tiers (tier, concurrent, queued, cpu_s_per_day, egress_bytes_per_day, storage_bytes,
                   stored_objects, max_size, weight)
VALUES (%(tier)s, %(concurrent)s, %(queued)s, %(cpu_s_per_day)s, %(egress_bytes_per_day)s,
        %(storage_bytes)s, %(stored_objects)s, %(max_size)s, %(weight)s)
ON CONFLICT (tier) DO UPDATE
SET concurrent = EXCLUDED.concurrent, queued = EXCLUDED.queued,
    cpu_s_per_day = EXCLUDED.cpu_s_per_day,
    egress_bytes_per_day = EXCLUDED.egress_bytes_per_day,
    storage_bytes = EXCLUDED.storage_bytes, stored_objects = EXCLUDED.stored_objects, max_size = EXCLUDED.max_size,
    weight = EXCLUDED.weight;

-- name: weigh
SELECT weigh_queues();

-- name: alone
SELECT take_submission_turn();

-- name: standing
SELECT t.tier, t.concurrent, t.queued, t.cpu_s_per_day, t.egress_bytes_per_day, t.storage_bytes,
       t.stored_objects, t.max_size, t.weight, COALESCE(q.active, 0) AS used_active,
       COALESCE(q.waiting, 0) AS used_queued, COALESCE(d.cpu_s, 0)::float8 AS used_cpu_s,
       COALESCE(d.egress_bytes_up + d.egress_bytes_down, 0) AS used_egress_bytes,
       COALESCE(s.bytes, 0) AS used_storage_bytes,
       COALESCE(s.objects, 0) AS used_stored_objects, c.now,
       (c.day + 1)::timestamp AT TIME ZONE 'UTC' AS day_ends
FROM tenant_quotas t
CROSS JOIN (SELECT clock_timestamp() AS now,
                   (clock_timestamp() AT TIME ZONE 'UTC')::date AS day) c
LEFT JOIN queues q ON q.tenant_id = t.tenant_id
LEFT JOIN usage_days d ON d.tenant_id = t.tenant_id AND d.day = c.day
LEFT JOIN storage_usage s ON s.tenant_id = t.tenant_id
WHERE t.tenant_id = app_tenant();

-- name: record
INSERT INTO usage_records (tenant_id, execution_id, attempt, outcome, started_at, ended_at, image,
                           size, isolation, wall_s, cpu_s, cpu_measured, memory_gib_s,
                           egress_bytes_up, egress_bytes_down, artifact_bytes)
SELECT tenant_id, execution_id, attempt, %(outcome)s,
       COALESCE(started_at, %(started_at)s),
       COALESCE(ended_at, clock_timestamp()), image, size, isolation, %(wall_s)s,
       COALESCE(%(cpu_s)s::numeric, %(wall_s)s * (limits ->> 'cpu')::numeric), %(cpu_s)s IS NOT NULL,
       %(wall_s)s * (limits ->> 'memory_mb')::numeric / 1024,
       %(egress_bytes_up)s, %(egress_bytes_down)s, %(artifact_bytes)s
FROM executions
WHERE tenant_id = app_tenant() AND execution_id = %(execution_id)s AND attempt = %(attempt)s
-- Of an attempt that has ended already; its transaction is undone, as its result is not accepted.
ON CONFLICT DO NOTHING;

-- name: days
SELECT day, attempts, wall_s, cpu_s, memory_gib_s, egress_bytes_up, egress_bytes_down,
       artifact_bytes
FROM usage_days
WHERE tenant_id = app_tenant() AND day BETWEEN %(first)s AND %(last)s ORDER BY day;

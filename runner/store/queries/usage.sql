-- name: record_requeued
-- Of an attempt that used nothing that is charged.
INSERT INTO usage_records (tenant_id, execution_id, attempt, outcome, started_at, ended_at, image,
                           size, isolation, wall_s, cpu_s, cpu_measured, memory_gib_s,
                           egress_bytes_up, egress_bytes_down, artifact_bytes)
SELECT tenant_id, execution_id, attempt, 'requeued', %(started_at)s, clock_timestamp(), image,
       size, isolation, 0, 0, true, 0, 0, 0, 0
FROM executions
WHERE tenant_id = app_tenant() AND execution_id = %(execution_id)s AND attempt = %(attempt)s;

-- name: days
SELECT day, attempts, wall_s, cpu_s, memory_gib_s, egress_bytes_up, egress_bytes_down,
       artifact_bytes
FROM usage_days
WHERE tenant_id = app_tenant() AND day BETWEEN %(first)s AND %(last)s ORDER BY day;

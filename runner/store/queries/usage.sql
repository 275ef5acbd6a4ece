-- name: record_requeued
-- For an attempt that used nothing that is charged.
INSERT INTO usage_records (tenant_id, execution_id, attempt, outcome, started_at, ended_at, image,
                           size, isolation, wall_s, cpu_s, cpu_measured, memory_gib_s,
                           egress_bytes_up, egress_bytes_down, artifact_bytes)
SELECT tenant_id, execution_id, attempt, 'requeued', %(started_at)s, clock_timestamp(), image,
       size, isolation, 0, 0, true, 0, 0, 0, 0
FROM executions
WHERE tenant_id = app_tenant() AND execution_id = %(execution_id)s AND attempt = %(attempt)s;

-- name: days
SELECT day, attempts, wall_s, cpu_s, memory_gib_s, egress_bytes_up, egress_bytes_down,
       artifact_bytes, sandbox_wall_s, sandbox_cpu_s, sandbox_memory_gib_s,
       port_bytes_in, port_bytes_out
FROM usage_days
WHERE tenant_id = app_tenant() AND day BETWEEN %(first)s AND %(last)s ORDER BY day;

-- name: count_sandbox
-- Enters what the counters say beyond what was entered before, so a repeated call enters it once.
-- What nobody could read is entered as the most that it can have been, and taken off what is read
-- later.
WITH held AS (
    SELECT tenant_id, sandbox_id, image, size, isolation, counted_at, slices + 1 AS slice,
           COALESCE(counted_cpu_s, 0) AS counted_cpu_s, counted_up, counted_down,
           counted_port_in, counted_port_out,
           (resources ->> 'cpu')::numeric AS cpu,
           (resources ->> 'memory_mb')::numeric / 1024 AS memory_gib,
           CASE WHEN %(ended)s THEN 'ended' WHEN state = 'paused' THEN 'paused' ELSE 'running' END
               AS outcome,
           state IN ('paused', 'resuming') AS stood_still, clock_timestamp() AS now
    FROM sandboxes
    WHERE sandbox_id = %(sandbox_id)s AND instance = %(instance)s AND state <> 'ended'
      AND counted_at IS NOT NULL
    FOR NO KEY UPDATE
), lasted AS MATERIALIZED (
    SELECT h.*, GREATEST(EXTRACT(EPOCH FROM h.now - h.counted_at), 0)::numeric AS seconds FROM held h
), used AS MATERIALIZED (
    SELECT l.*, CASE WHEN l.stood_still THEN 0 ELSE l.seconds END AS wall_s,
           GREATEST(COALESCE(%(cpu_s)s::numeric - l.counted_cpu_s,
                             CASE WHEN l.stood_still THEN 0 ELSE l.seconds * l.cpu END), 0) AS cpu_s,
           GREATEST(%(egress_bytes_up)s - l.counted_up, 0) AS up,
           GREATEST(%(egress_bytes_down)s - l.counted_down, 0) AS down,
           GREATEST(%(port_bytes_in)s - l.counted_port_in, 0) AS port_in,
           GREATEST(%(port_bytes_out)s - l.counted_port_out, 0) AS port_out
    FROM lasted l
), counted AS (
    UPDATE sandboxes s
    SET counted_at = GREATEST(u.now, u.counted_at), slices = u.slice,
        counted_cpu_s = u.counted_cpu_s + u.cpu_s, counted_up = u.counted_up + u.up,
        counted_down = u.counted_down + u.down,
        counted_port_in = u.counted_port_in + u.port_in,
        counted_port_out = u.counted_port_out + u.port_out
    FROM used u WHERE s.tenant_id = u.tenant_id AND s.sandbox_id = u.sandbox_id
)
INSERT INTO usage_records (tenant_id, execution_id, attempt, outcome, started_at, ended_at, image,
                           size, isolation, wall_s, cpu_s, cpu_measured, memory_gib_s,
                           egress_bytes_up, egress_bytes_down, artifact_bytes, kind, port_bytes_in,
                           port_bytes_out)
SELECT tenant_id, sandbox_id, slice, outcome, counted_at, GREATEST(now, counted_at), image, size,
       isolation, wall_s, cpu_s, %(cpu_s)s IS NOT NULL, seconds * memory_gib, up, down, 0, 'sandbox',
       port_in, port_out
FROM used;

-- part: columns
tenant_id, execution_id, state, attempt, created_at, started_at, ended_at, cancel_requested_at,
project, language, image, size, limits, isolation, interpret, reuse, output_keep, egress,
egress_policy, metadata, result

-- name: insert
WITH stored AS (
INSERT INTO executions (tenant_id, execution_id, language, image, size, limits, isolation, egress,
                        egress_policy, secret_env, metadata, on_worker_loss, argv, env, stdin,
                        project, artifacts, artifacts_to, interpret, reuse, output_keep,
                        traceparent, event_seq)
VALUES (app_tenant(), %(execution_id)s, %(language)s, %(image)s, %(size)s, %(limits)s,
        %(isolation)s, %(egress)s, %(egress_policy)s, %(secret_env)s, %(metadata)s,
        %(on_worker_loss)s, %(argv)s, %(env)s, %(stdin)s, %(project)s, %(artifacts)s,
        %(artifacts_to)s, %(interpret)s, %(reuse)s, %(output_keep)s, %(traceparent)s, 1)
RETURNING tenant_id, execution_id
), labelled AS (
INSERT INTO labels (tenant_id, execution_id, key, value)
SELECT s.tenant_id, s.execution_id, l.key, l.value
FROM stored s, jsonb_each_text(%(metadata)s::jsonb) l
), files AS (
INSERT INTO input_files (tenant_id, execution_id, path, content, object_key, size, sha256)
SELECT s.tenant_id, s.execution_id, f.path, f.content, f.object_key, f.size, f.sha256
FROM stored s, unnest(%(paths)s::text[], %(contents)b::bytea[], %(object_keys)s::text[],
                      %(sizes)s::bigint[], %(sums)s::text[])
               AS f (path, content, object_key, size, sha256)
)
INSERT INTO events (tenant_id, execution_id, seq, attempt, kind, data)
SELECT tenant_id, execution_id, 1, 0, 'state', '{"state": "queued"}' FROM stored;

-- name: insert_event
INSERT INTO events (tenant_id, execution_id, seq, attempt, kind, data)
VALUES (app_tenant(), %(execution_id)s, %(seq)s, %(attempt)s, %(kind)s, %(data)s);

-- name: get
SELECT {columns}
FROM executions WHERE execution_id = %(execution_id)s;

-- name: list
SELECT {columns}
FROM executions
WHERE tenant_id = app_tenant()
  AND (%(before)s::uuid IS NULL OR execution_id < %(before)s)
  AND (%(project)s::text IS NULL OR project = %(project)s)
  AND (%(states)s::text[] IS NULL OR state = ANY (%(states)s))
  AND (%(created_after)s::timestamptz IS NULL OR created_at >= %(created_after)s)
  AND (%(created_before)s::timestamptz IS NULL OR created_at < %(created_before)s)
ORDER BY execution_id DESC LIMIT %(limit)s;

-- name: list_labelled
-- Search by the label that fewest executions have (counted up to a hundred); compare the others.
WITH wanted AS (
    SELECT key, value FROM jsonb_each_text(%(metadata)s::jsonb) w
    ORDER BY (
        SELECT count(*) FROM (
            SELECT FROM labels l
            WHERE l.tenant_id = app_tenant() AND l.key = w.key AND l.value = w.value LIMIT 100
        ) few
    ) LIMIT 1
)
SELECT {columns}
FROM labels l JOIN executions e USING (tenant_id, execution_id)
WHERE l.tenant_id = app_tenant()
  AND l.key = (SELECT key FROM wanted) AND l.value = (SELECT value FROM wanted)
  AND metadata @> %(metadata)s::jsonb
  AND (%(before)s::uuid IS NULL OR execution_id < %(before)s)
  AND (%(project)s::text IS NULL OR project = %(project)s)
  AND (%(states)s::text[] IS NULL OR state = ANY (%(states)s))
  AND (%(created_after)s::timestamptz IS NULL OR created_at >= %(created_after)s)
  AND (%(created_before)s::timestamptz IS NULL OR created_at < %(created_before)s)
ORDER BY l.execution_id DESC LIMIT %(limit)s;

-- name: states_are_rarer
-- Whether fewer executions have one of these states than have any of these labels. False if a
-- thousand executions have one of these states.
-- Planned anew: whether the index of states is worth using depends on the states.
SELECT CASE WHEN n < 1000 THEN NOT EXISTS (
    SELECT FROM jsonb_each_text(%(metadata)s::jsonb) w
    WHERE (
        SELECT count(*) FROM (
            SELECT FROM labels l
            WHERE l.tenant_id = app_tenant() AND l.key = w.key AND l.value = w.value LIMIT n + 1
        ) few
    ) <= n
) ELSE false END AS rarer
FROM (
    SELECT count(*) AS n FROM (
        SELECT FROM executions
        WHERE tenant_id = app_tenant() AND state = ANY (%(states)s::text[]) LIMIT 1000
    ) few
) counted;

-- name: list_labelled_by_state
-- For rare states: read the executions in these states, and compare their labels.
WITH rare AS MATERIALIZED (
    SELECT {columns}
    FROM executions
    WHERE tenant_id = app_tenant() AND state = ANY (%(states)s::text[])
)
SELECT * FROM rare
WHERE metadata @> %(metadata)s::jsonb
  AND (%(before)s::uuid IS NULL OR execution_id < %(before)s)
  AND (%(project)s::text IS NULL OR project = %(project)s)
  AND (%(created_after)s::timestamptz IS NULL OR created_at >= %(created_after)s)
  AND (%(created_before)s::timestamptz IS NULL OR created_at < %(created_before)s)
ORDER BY execution_id DESC LIMIT %(limit)s;

-- name: load_claimed
SELECT argv, env, stdin, language, image, size, limits, isolation, egress, egress_policy,
       secret_env, metadata, on_worker_loss, artifacts, artifacts_to, interpret, reuse,
       output_keep, traceparent, cancel_requested_at,
       EXTRACT(EPOCH FROM claimed_at - queued_at)::double precision AS waited_s
FROM executions
WHERE execution_id = NULLIF(current_setting('runner.claimed', true), '')::uuid;

-- name: load_claimed_files
SELECT path, content, object_key, size, sha256 FROM input_files
WHERE execution_id = NULLIF(current_setting('runner.claimed', true), '')::uuid
ORDER BY path;

-- name: lock
SELECT state, attempt, given_back, cancel_requested_at, on_worker_loss,
       COALESCE(lease_until < clock_timestamp(), false) AS lease_expired
FROM executions WHERE execution_id = %(execution_id)s FOR UPDATE;

-- name: start_running
WITH started AS (
    UPDATE executions
    SET state = 'running', started_at = clock_timestamp() - %(began_ago)s,
        event_seq = event_seq + 1, lease_until = clock_timestamp() + %(lease)s
    WHERE execution_id = %(execution_id)s AND attempt = %(attempt)s AND state = 'starting'
    RETURNING tenant_id, event_seq
), audited AS (
    INSERT INTO audit_events (tenant_id, body) SELECT tenant_id, %(began)s FROM started
), told AS (
    INSERT INTO events (tenant_id, execution_id, seq, attempt, kind, data)
    SELECT tenant_id, %(execution_id)s, event_seq, %(attempt)s, 'state', '{"state": "running"}'
    FROM started
    RETURNING seq
)
SELECT seq FROM told
UNION ALL
-- An earlier call stored it, and PostgreSQL went away before it confirmed that.
SELECT event_seq FROM executions
WHERE execution_id = %(execution_id)s AND attempt = %(attempt)s AND state = 'running';

-- name: renew_lease
UPDATE executions SET lease_until = clock_timestamp() + %(lease)s
WHERE execution_id = %(execution_id)s AND attempt = %(attempt)s
  AND state IN ('starting', 'running') AND lease_until > clock_timestamp()
RETURNING cancel_requested_at IS NOT NULL AS cancel_requested;

-- name: append_events
WITH fence AS (
    UPDATE executions SET event_seq = event_seq + cardinality(%(kinds)s::text[])
    WHERE execution_id = %(execution_id)s AND attempt = %(attempt)s AND state = 'running'
      AND event_seq = %(after)s
    RETURNING tenant_id, event_seq - cardinality(%(kinds)s::text[]) AS base
)
INSERT INTO events (tenant_id, execution_id, seq, attempt, kind, data, chunk)
SELECT f.tenant_id, %(execution_id)s, f.base + o.position, %(attempt)s, o.kind, o.data, o.chunk
FROM fence f, unnest(%(kinds)s::text[], %(data)s::jsonb[], %(chunks)b::bytea[])
     WITH ORDINALITY AS o (kind, data, chunk, position);

-- name: position
SELECT state, attempt, event_seq, result FROM executions WHERE execution_id = %(execution_id)s;

-- name: requeue
UPDATE executions e
SET state = 'queued', lease_until = NULL, node = NULL, instance = NULL, started_at = NULL,
    queued_at = clock_timestamp(), event_seq = e.event_seq + 1,
    given_back = e.given_back + %(free)s::integer
FROM (
    SELECT tenant_id, execution_id, started_at FROM executions
    WHERE execution_id = %(execution_id)s AND attempt = %(attempt)s
    FOR NO KEY UPDATE
) given_up
WHERE (e.tenant_id, e.execution_id) = (given_up.tenant_id, given_up.execution_id)
  AND e.state IN ('starting', 'running')
RETURNING e.event_seq AS seq, given_up.started_at;

-- name: finish
WITH finished AS (
    UPDATE executions
    SET state = %(state)s,
        started_at = COALESCE(started_at, clock_timestamp() - %(began_ago)s::interval),
        ended_at = clock_timestamp(), lease_until = NULL, result = %(result)s,
        event_seq = event_seq + cardinality(%(kinds)s::text[])
    WHERE execution_id = %(execution_id)s AND attempt = %(attempt)s
      AND state = ANY (%(sources)s::text[]) AND event_seq = COALESCE(%(after)s, event_seq)
    RETURNING tenant_id, event_seq - cardinality(%(kinds)s::text[]) AS base,
              created_at, started_at, ended_at, cancel_requested_at,
              image, size, isolation, limits
), told AS (
    INSERT INTO events (tenant_id, execution_id, seq, attempt, kind, data, chunk)
    SELECT f.tenant_id, %(execution_id)s, f.base + o.position, %(attempt)s, o.kind, o.data, o.chunk
    FROM finished f, unnest(%(kinds)s::text[], %(data)s::jsonb[], %(chunks)b::bytea[])
         WITH ORDINALITY AS o (kind, data, chunk, position)
), used AS (
    INSERT INTO usage_records (tenant_id, execution_id, attempt, outcome, started_at, ended_at,
                               image, size, isolation, wall_s, cpu_s, cpu_measured, memory_gib_s,
                               egress_bytes_up, egress_bytes_down, artifact_bytes)
    SELECT tenant_id, %(execution_id)s, %(attempt)s, %(state)s, started_at, ended_at,
           image, size, isolation, %(wall_s)s,
           COALESCE(%(cpu_s)s::numeric, %(wall_s)s * (limits ->> 'cpu')::numeric),
           %(cpu_s)s IS NOT NULL, %(wall_s)s * (limits ->> 'memory_mb')::numeric / 1024,
           %(egress_bytes_up)s, %(egress_bytes_down)s, %(artifact_bytes)s
    FROM finished
)
SELECT created_at, started_at, ended_at, cancel_requested_at FROM finished;

-- name: cancel_queued
UPDATE executions
SET state = 'cancelled', ended_at = clock_timestamp(), result = %(result)s,
    cancel_requested_at = clock_timestamp(), event_seq = event_seq + 1
WHERE execution_id = %(execution_id)s AND attempt = %(attempt)s AND state = 'queued'
RETURNING event_seq AS seq;

-- name: request_cancel
UPDATE executions SET cancel_requested_at = COALESCE(cancel_requested_at, clock_timestamp())
WHERE execution_id = %(execution_id)s AND state IN ('starting', 'running');

-- name: events_after
SELECT seq, attempt, kind, at, data, chunk FROM events
WHERE execution_id = %(execution_id)s AND seq > %(after)s
ORDER BY seq LIMIT %(limit)s;

-- name: state_changes
SELECT seq, attempt, kind, at, data, chunk FROM events
WHERE execution_id = %(execution_id)s AND kind = 'state'
ORDER BY seq LIMIT %(limit)s;

-- name: output_of_ended
-- Do not search by `ended_at`: a plan that was made while there were few executions uses its index,
-- and reads all ended executions once there are many.
SELECT o.kind, o.data, o.chunk FROM executions e
JOIN events o ON o.tenant_id = e.tenant_id AND o.execution_id = e.execution_id
             AND o.attempt = e.attempt AND o.kind IN ('stdout', 'stderr')
WHERE e.execution_id = %(execution_id)s AND e.state NOT IN ('queued', 'starting', 'running')
ORDER BY o.seq;

-- name: insert_artifact
INSERT INTO artifacts (tenant_id, execution_id, path, size, sha256, media_type, object_key)
VALUES (app_tenant(), %(execution_id)s, %(path)s, %(size)s, %(sha256)s, %(media_type)s,
        %(object_key)s);

-- name: artifacts
SELECT path, size, sha256, media_type, object_key FROM artifacts
WHERE execution_id = %(execution_id)s ORDER BY path;

-- name: artifact
SELECT path, size, sha256, media_type, object_key FROM artifacts
WHERE execution_id = %(execution_id)s AND path = %(path)s;

-- name: queue_place
SELECT queue_position(%(execution_id)s) AS position, claim_interval() AS interval_s;

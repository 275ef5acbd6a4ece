-- part: columns
tenant_id, sandbox_id, state, reason, detail, created_at, started_at, ended_at, expires_at,
timeout_s, on_timeout, auto_resume, lives_until, project, image, size, resources, isolation,
egress, egress_policy, env, secret_env, metadata, created_by, filling, builds, on_shortage,
kept_as, workdir, username

-- name: insert
INSERT INTO sandboxes (tenant_id, sandbox_id, created_by, timeout_s, expires_at, on_timeout,
                       auto_resume, lives_until, project, image, size, resources, isolation, egress,
                       egress_policy, env, secret_env, metadata, lease_until, filling, builds,
                       on_shortage, workdir, username)
VALUES (app_tenant(), %(sandbox_id)s, %(created_by)s, %(timeout_s)s,
        now() + CASE WHEN %(filling)s THEN %(filling_for)s
                     ELSE make_interval(secs => %(timeout_s)s) END, %(on_timeout)s,
        %(auto_resume)s, now() + make_interval(secs => %(max_life_s)s), %(project)s, %(image)s, %(size)s,
        %(resources)s, %(isolation)s, %(egress)s, %(egress_policy)s, %(env)s, %(secret_env)s,
        %(metadata)s, now() + %(unclaimed)s, %(filling)s, %(builds)s,
        %(on_shortage)s, %(workdir)s, %(username)s)
RETURNING {columns};

-- name: get
SELECT {columns}
FROM sandboxes WHERE sandbox_id = %(sandbox_id)s;

-- part: listed
WHERE tenant_id = app_tenant()
  AND (%(project)s::text IS NULL OR project = %(project)s)
  AND (%(states)s::text[] IS NULL OR state = ANY (%(states)s))
  AND (%(metadata)s::jsonb IS NULL OR metadata @> %(metadata)s)
  AND (%(image)s::text IS NULL OR image = %(image)s)
  AND (%(image_begins)s::text IS NULL OR starts_with(image, %(image_begins)s))
  AND (%(image_ends)s::text IS NULL OR right(image, length(%(image_ends)s)) = %(image_ends)s)
  AND (%(started_from)s::timestamptz IS NULL OR started_at >= %(started_from)s)

-- name: list
SELECT {columns}
FROM sandboxes
{listed}
  AND (%(beyond)s::uuid IS NULL OR sandbox_id < %(beyond)s)
ORDER BY sandbox_id DESC LIMIT %(limit)s;

-- name: list_oldest
SELECT {columns}
FROM sandboxes
{listed}
  AND (%(beyond)s::uuid IS NULL OR sandbox_id > %(beyond)s)
ORDER BY sandbox_id LIMIT %(limit)s;

-- name: where
SELECT s.state, s.reason, s.detail, s.node, s.auto_resume, s.kept_as, s.username, n.door,
       COALESCE(n.state = 'removed', false) AS node_removed
FROM sandboxes s LEFT JOIN nodes n USING (node)
WHERE s.sandbox_id = %(sandbox_id)s;

-- name: update
UPDATE sandboxes
SET timeout_s = CASE WHEN %(sets_timeout)s THEN %(timeout_s)s ELSE timeout_s END,
    expires_at = CASE WHEN %(sets_timeout)s
                      THEN clock_timestamp() + make_interval(secs => %(timeout_s)s)
                      ELSE expires_at END,
    metadata = COALESCE(%(metadata)s, metadata),
    on_shortage = COALESCE(%(on_shortage)s, on_shortage),
    egress = COALESCE(%(egress)s, egress),
    egress_policy = CASE WHEN %(egress)s::jsonb IS NULL THEN egress_policy
                         ELSE %(egress_policy)s END
WHERE sandbox_id = %(sandbox_id)s
  AND state IN ('starting', 'running', 'pausing', 'paused', 'resuming')
RETURNING {columns};

-- name: filled
UPDATE sandboxes
SET filling = false, expires_at = clock_timestamp() + make_interval(secs => timeout_s)
WHERE sandbox_id = %(sandbox_id)s AND filling
  AND state IN ('starting', 'running', 'pausing', 'paused', 'resuming');

-- name: end_unclaimed
UPDATE sandboxes
SET state = 'ended', reason = %(reason)s, detail = %(detail)s, ended_at = clock_timestamp(),
    lease_until = NULL
WHERE sandbox_id = %(sandbox_id)s AND node IS NULL AND state = 'starting';

-- name: ask_to_stop
UPDATE sandboxes SET state = 'stopping'
WHERE sandbox_id = %(sandbox_id)s AND node IS NOT NULL
  AND state IN ('starting', 'running', 'pausing', 'paused', 'resuming');

-- name: claim
UPDATE sandboxes
SET node = %(node)s, instance = %(instance)s, lease_until = clock_timestamp() + %(lease)s
WHERE sandbox_id = %(sandbox_id)s AND node IS NULL AND state = 'starting'
  AND lease_until > clock_timestamp()
  AND NOT EXISTS (SELECT FROM nodes n WHERE n.node = %(node)s
                  AND (n.state <> 'ready' OR n.instance <> %(instance)s))
RETURNING {columns};

-- name: start
WITH started AS (
    UPDATE sandboxes
    SET state = 'running', started_at = clock_timestamp(), guest = %(guest)s,
        counted_at = clock_timestamp(), counted_cpu_s = %(cpu_s)s
    WHERE sandbox_id = %(sandbox_id)s AND instance = %(instance)s AND state = 'starting'
    RETURNING started_at
), recorded AS (
    INSERT INTO audit_events (tenant_id, body)
    SELECT app_tenant(), %(record)s::text FROM started WHERE %(record)s::text IS NOT NULL
)
SELECT started_at FROM started;

-- name: begin
-- Claims a new sandbox and starts it at once, in a container that was made for such a spec.
WITH begun AS (
    UPDATE sandboxes
    SET node = %(node)s, instance = %(instance)s, lease_until = clock_timestamp() + %(lease)s,
        state = 'running', started_at = clock_timestamp(), guest = %(guest)s,
        counted_at = clock_timestamp(), counted_cpu_s = %(cpu_s)s
    WHERE sandbox_id = %(sandbox_id)s AND node IS NULL AND state = 'starting'
      AND lease_until > clock_timestamp()
      AND image = %(image)s AND resources = %(resources)s AND isolation = %(isolation)s
      AND NOT builds AND egress = '[]' AND secret_env = '{}'
      AND NOT EXISTS (SELECT FROM nodes n WHERE n.node = %(node)s
                      AND (n.state <> 'ready' OR n.instance <> %(instance)s))
    RETURNING {columns}
), recorded AS (
    INSERT INTO audit_events (tenant_id, body) SELECT app_tenant(), %(record)s::text FROM begun
)
SELECT * FROM begun;

-- name: change
WITH changed AS (
    UPDATE sandboxes SET state = %(target)s
    WHERE sandbox_id = %(sandbox_id)s AND instance = %(instance)s AND state = ANY (%(sources)s)
    RETURNING sandbox_id
), recorded AS (
    INSERT INTO audit_events (tenant_id, body)
    SELECT app_tenant(), %(record)s::text FROM changed WHERE %(record)s::text IS NOT NULL
)
SELECT sandbox_id FROM changed;

-- name: count_anew
UPDATE sandboxes SET expires_at = clock_timestamp() + make_interval(secs => timeout_s)
WHERE sandbox_id = %(sandbox_id)s AND instance = %(instance)s
  AND state IN ('pausing', 'paused', 'resuming')
RETURNING expires_at;

-- name: keep_masks
UPDATE sandboxes SET masks = %(masks)s
WHERE sandbox_id = %(sandbox_id)s AND instance = %(instance)s AND state <> 'ended';

-- name: take_over
UPDATE sandboxes
SET instance = %(instance)s, lease_until = clock_timestamp() + %(lease)s,
    -- Its new way out and its ports begin to count anew; its container goes on.
    counted_up = 0, counted_down = 0, counted_port_in = 0, counted_port_out = 0
WHERE sandbox_id = %(sandbox_id)s AND node = %(node)s AND instance = %(earlier)s
  AND state <> 'ended'
RETURNING {columns}, guest, masks;

-- name: end
UPDATE sandboxes
SET state = 'ended', reason = %(reason)s, detail = %(detail)s, kept_as = %(kept_as)s,
    ended_at = clock_timestamp(), lease_until = NULL, guest = NULL, masks = NULL
WHERE sandbox_id = %(sandbox_id)s AND instance = %(instance)s
  AND state IN ('starting', 'running', 'pausing', 'paused', 'resuming', 'stopping')
RETURNING created_at, started_at, ended_at;

-- name: end_expired
UPDATE sandboxes
SET state = 'ended', reason = %(reason)s, detail = %(detail)s, ended_at = clock_timestamp(),
    lease_until = NULL, guest = NULL, masks = NULL
WHERE sandbox_id = %(sandbox_id)s AND lease_until < clock_timestamp()
  AND state IN ('starting', 'running', 'pausing', 'paused', 'resuming', 'stopping')
RETURNING created_at, started_at, ended_at;

-- name: renew
SELECT tenant_id, sandbox_id, state FROM renew_sandbox_leases(%(node)s, %(instance)s, %(lease)s);

-- name: of_node
SELECT tenant_id, sandbox_id, state, instance FROM sandboxes_of_node(%(node)s);

-- name: expired
SELECT tenant_id, sandbox_id, state, node, instance FROM expired_sandbox_leases(%(limit)s);

-- name: of_suspended
SELECT tenant_id, sandbox_id FROM sandboxes_of_suspended(%(node)s, %(limit)s);

-- name: counts
SELECT state, sandboxes FROM sandbox_counts();

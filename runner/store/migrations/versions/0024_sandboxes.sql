-- Sandboxes that live. States and their allowed changes: runner/words/lives.py. A sandbox is the
-- API's to ask for and its node's to change; the node holds it by a lease, as an execution's worker
-- does.
CREATE TABLE sandboxes (
    tenant_id     uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    sandbox_id    uuid NOT NULL,
    state         text NOT NULL DEFAULT 'starting'
                      CHECK (state IN ('starting', 'running', 'pausing', 'paused', 'resuming',
                                       'stopping', 'ended')),
    reason        text CHECK (reason IN ('killed', 'expired', 'max_life', 'out_of_memory', 'lost',
                                         'start_failed', 'node_drained', 'tenant_suspended',
                                         'protocol_violation', 'internal_error')),
    detail        text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    created_by    text NOT NULL,
    started_at    timestamptz,
    ended_at      timestamptz,
    timeout_s     double precision CHECK (timeout_s > 0),
    expires_at    timestamptz,
    on_timeout    text NOT NULL CHECK (on_timeout IN ('kill', 'pause')),
    lives_until   timestamptz,
    project       text,
    image         text NOT NULL,
    size          text NOT NULL,
    resources     jsonb NOT NULL,
    isolation     text NOT NULL CHECK (isolation IN ('container', 'gvisor')),
    egress        jsonb NOT NULL,
    egress_policy text,
    env           jsonb NOT NULL,
    secret_env    jsonb NOT NULL,
    metadata      jsonb NOT NULL,
    node          text,
    instance      text,
    lease_until   timestamptz,
    guest         jsonb,
    counted_at    timestamptz,
    counted_cpu_s numeric(20, 6),
    counted_up    bigint NOT NULL DEFAULT 0,
    counted_down  bigint NOT NULL DEFAULT 0,
    slices        integer NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, sandbox_id),
    FOREIGN KEY (tenant_id, project) REFERENCES projects ON DELETE SET NULL (project),
    CONSTRAINT sandboxes_end CHECK ((state = 'ended') = (ended_at IS NOT NULL)
                                    AND (state = 'ended') = (reason IS NOT NULL)),
    CONSTRAINT sandboxes_lease CHECK ((state = 'ended') = (lease_until IS NULL)),
    CONSTRAINT sandboxes_node CHECK ((node IS NULL) = (instance IS NULL)),
    -- What a node needs to find its sandbox again, a secret among it, goes with the sandbox.
    CONSTRAINT sandboxes_guest CHECK (guest IS NULL OR state <> 'ended')
);
CREATE INDEX sandboxes_living ON sandboxes (tenant_id) WHERE (state <> 'ended');
CREATE INDEX sandboxes_by_project ON sandboxes (tenant_id, project, sandbox_id)
WHERE (project IS NOT NULL);
CREATE INDEX sandboxes_ended ON sandboxes (tenant_id, ended_at) WHERE (ended_at IS NOT NULL);
CREATE INDEX sandboxes_lease ON sandboxes (lease_until) WHERE (state <> 'ended');
CREATE INDEX sandboxes_node ON sandboxes (node) WHERE (state <> 'ended');
COMMENT ON COLUMN sandboxes.expires_at IS 'NULL: its time is not limited.';
COMMENT ON COLUMN sandboxes.lives_until IS 'No later, however often its time is set again.';
COMMENT ON COLUMN sandboxes.secret_env IS 'Environment variable to name of a secret; no values.';
COMMENT ON COLUMN sandboxes.guest IS
    'What its node finds it by after a restart. A secret is in it: the worker''s alone to read.';
COMMENT ON COLUMN sandboxes.counted_at IS 'Until when its use is in the ledger.';
COMMENT ON COLUMN sandboxes.counted_cpu_s IS 'As its container''s counter said then.';
COMMENT ON COLUMN sandboxes.counted_up IS 'As the way out said then that this instance opened.';
COMMENT ON COLUMN sandboxes.slices IS 'How many rows of the ledger are its.';

ALTER TABLE sandboxes ENABLE ROW LEVEL SECURITY;
ALTER TABLE sandboxes FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON sandboxes USING (tenant_id = app_tenant())
    WITH CHECK (tenant_id = app_tenant());
CREATE POLICY across_tenants ON sandboxes TO runner_definer USING (true) WITH CHECK (true);

-- The API asks for one, and may change what a client may. It ends one that no node has claimed, and
-- says of one that a node should end it; guest, node and lease are the worker's.
GRANT SELECT (tenant_id, sandbox_id, state, reason, detail, created_at, created_by, started_at,
              ended_at, timeout_s, expires_at, on_timeout, lives_until, project, image, size,
              resources, isolation, egress, egress_policy, env, secret_env, metadata, node,
              lease_until),
      INSERT (tenant_id, sandbox_id, created_by, timeout_s, expires_at, on_timeout, lives_until,
              project, image, size, resources, isolation, egress, egress_policy, env, secret_env,
              metadata, lease_until),
      UPDATE (state, reason, detail, ended_at, timeout_s, expires_at, metadata, lease_until)
    ON sandboxes TO runner_api;
GRANT SELECT, UPDATE (state, reason, detail, started_at, ended_at, expires_at, node, instance,
                      lease_until, guest, counted_at, counted_cpu_s, counted_up, counted_down,
                      slices)
    ON sandboxes TO runner_worker;
GRANT SELECT (tenant_id, state) ON sandboxes TO runner_operator, runner_eraser;
GRANT SELECT (tenant_id, sandbox_id, state, ended_at, node, instance, lease_until),
      UPDATE (lease_until), DELETE
    ON sandboxes TO runner_definer;

-- An idempotency key is for one thing: an execution, or a sandbox.
ALTER TABLE idempotency_keys ALTER COLUMN execution_id DROP NOT NULL;
ALTER TABLE idempotency_keys ADD COLUMN sandbox_id uuid;
ALTER TABLE idempotency_keys ADD CONSTRAINT idempotency_keys_one
    CHECK ((execution_id IS NULL) <> (sandbox_id IS NULL));
ALTER TABLE idempotency_keys ADD CONSTRAINT idempotency_keys_sandbox
    FOREIGN KEY (tenant_id, sandbox_id) REFERENCES sandboxes ON DELETE CASCADE
    DEFERRABLE INITIALLY DEFERRED;

-- How many of them a tier may have at once, and how much memory for all together. The figures are
-- published with the others after the migration.
ALTER TABLE tiers ADD COLUMN sandboxes integer NOT NULL DEFAULT 1 CHECK (sandboxes >= 0);
ALTER TABLE tiers ADD COLUMN sandbox_memory_mb integer NOT NULL DEFAULT 1
    CHECK (sandbox_memory_mb >= 0);
ALTER TABLE tiers ALTER COLUMN sandboxes DROP DEFAULT;
ALTER TABLE tiers ALTER COLUMN sandbox_memory_mb DROP DEFAULT;
CREATE OR REPLACE VIEW tenant_quotas WITH (security_invoker = true) AS
SELECT t.tenant_id, t.tier, t.suspended_at IS NOT NULL AS suspended,
       COALESCE(t.max_concurrency, r.concurrent) AS concurrent,
       COALESCE((t.quotas ->> 'queued')::integer, r.queued) AS queued,
       COALESCE((t.quotas ->> 'cpu_s_per_day')::bigint, r.cpu_s_per_day) AS cpu_s_per_day,
       COALESCE((t.quotas ->> 'egress_bytes_per_day')::bigint, r.egress_bytes_per_day)
           AS egress_bytes_per_day,
       COALESCE((t.quotas ->> 'storage_bytes')::bigint, r.storage_bytes) AS storage_bytes,
       COALESCE((t.quotas ->> 'stored_objects')::bigint, r.stored_objects) AS stored_objects,
       COALESCE(t.quotas ->> 'max_size', r.max_size) AS max_size,
       COALESCE((t.quotas ->> 'weight')::integer, r.weight) AS weight,
       COALESCE((t.quotas ->> 'sandboxes')::integer, r.sandboxes) AS sandboxes,
       COALESCE((t.quotas ->> 'sandbox_memory_mb')::integer, r.sandbox_memory_mb)
           AS sandbox_memory_mb
FROM tenants t JOIN tiers r USING (tier);

-- What they use goes into the ledger, too: in slices, as long as they live. The ledger's sums say
-- how much of each is theirs.
ALTER TABLE usage_records ADD COLUMN kind text NOT NULL DEFAULT 'execution'
    CHECK (kind IN ('execution', 'sandbox'));
COMMENT ON COLUMN usage_records.execution_id IS 'The execution''s id, or the sandbox''s.';
COMMENT ON COLUMN usage_records.attempt IS 'Of an execution; or the number of the slice, from 1.';
COMMENT ON COLUMN usage_records.outcome IS
    'The state it ended in, or requeued; of a sandbox, whether it ran, was paused or has ended.';
ALTER TABLE usage_days
    ADD COLUMN sandbox_wall_s       numeric(20, 6) NOT NULL DEFAULT 0,
    ADD COLUMN sandbox_cpu_s        numeric(20, 6) NOT NULL DEFAULT 0,
    ADD COLUMN sandbox_memory_gib_s numeric(20, 6) NOT NULL DEFAULT 0;

GRANT CREATE ON SCHEMA public TO runner_definer, runner_eraser;

CREATE OR REPLACE FUNCTION usage_adds_up() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    living boolean := NEW.kind = 'sandbox';
BEGIN
    INSERT INTO usage_days AS d (tenant_id, day, attempts, wall_s, cpu_s, memory_gib_s,
                                 egress_bytes_up, egress_bytes_down, artifact_bytes,
                                 sandbox_wall_s, sandbox_cpu_s, sandbox_memory_gib_s)
    VALUES (NEW.tenant_id, (NEW.ended_at AT TIME ZONE 'UTC')::date,
            CASE WHEN living THEN 0 ELSE 1 END, NEW.wall_s, NEW.cpu_s, NEW.memory_gib_s,
            NEW.egress_bytes_up, NEW.egress_bytes_down, NEW.artifact_bytes,
            CASE WHEN living THEN NEW.wall_s ELSE 0 END, CASE WHEN living THEN NEW.cpu_s ELSE 0 END,
            CASE WHEN living THEN NEW.memory_gib_s ELSE 0 END)
    ON CONFLICT (tenant_id, day) DO UPDATE
    SET attempts = d.attempts + EXCLUDED.attempts,
        wall_s = d.wall_s + EXCLUDED.wall_s,
        cpu_s = d.cpu_s + EXCLUDED.cpu_s,
        memory_gib_s = d.memory_gib_s + EXCLUDED.memory_gib_s,
        egress_bytes_up = d.egress_bytes_up + EXCLUDED.egress_bytes_up,
        egress_bytes_down = d.egress_bytes_down + EXCLUDED.egress_bytes_down,
        artifact_bytes = d.artifact_bytes + EXCLUDED.artifact_bytes,
        sandbox_wall_s = d.sandbox_wall_s + EXCLUDED.sandbox_wall_s,
        sandbox_cpu_s = d.sandbox_cpu_s + EXCLUDED.sandbox_cpu_s,
        sandbox_memory_gib_s = d.sandbox_memory_gib_s + EXCLUDED.sandbox_memory_gib_s;
    RETURN NULL;
END
$$;

-- All that a node holds, in one statement. What is not returned is not its any more; what is
-- `stopping` was asked to end. A lease that has run out is renewed as well, unless somebody has ended
-- the sandbox for it: it lives nowhere else, and while PostgreSQL was away nobody could renew it.
CREATE FUNCTION renew_sandbox_leases(p_node text, p_instance text, p_lease interval)
    RETURNS TABLE (tenant_id uuid, sandbox_id uuid, state text)
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    UPDATE sandboxes s SET lease_until = clock_timestamp() + p_lease
    WHERE s.node = p_node AND s.instance = p_instance AND s.state <> 'ended'
    RETURNING s.tenant_id, s.sandbox_id, s.state;
END;
ALTER FUNCTION renew_sandbox_leases(text, text, interval) OWNER TO runner_definer;

-- What may live on a node, whichever of its processes held it: a worker that starts looks for it.
CREATE FUNCTION sandboxes_of_node(p_node text)
    RETURNS TABLE (tenant_id uuid, sandbox_id uuid, state text, instance text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT s.tenant_id, s.sandbox_id, s.state, s.instance FROM sandboxes s
    WHERE s.node = p_node AND s.state <> 'ended';
END;
ALTER FUNCTION sandboxes_of_node(text) OWNER TO runner_definer;

-- Sandboxes whose node stopped renewing its lease, or that no node has claimed in time.
CREATE FUNCTION expired_sandbox_leases(p_limit integer)
    RETURNS TABLE (tenant_id uuid, sandbox_id uuid, state text, node text, instance text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT s.tenant_id, s.sandbox_id, s.state, s.node, s.instance FROM sandboxes s
    WHERE s.state <> 'ended' AND s.lease_until < clock_timestamp()
    ORDER BY s.lease_until LIMIT p_limit;
END;
ALTER FUNCTION expired_sandbox_leases(integer) OWNER TO runner_definer;

-- What of suspended tenants lives on a node.
CREATE FUNCTION sandboxes_of_suspended(p_node text, p_limit integer)
    RETURNS TABLE (tenant_id uuid, sandbox_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT s.tenant_id, s.sandbox_id FROM tenants t JOIN sandboxes s USING (tenant_id)
    WHERE t.suspended_at IS NOT NULL AND s.node = p_node AND s.state <> 'ended'
    LIMIT p_limit;
END;
ALTER FUNCTION sandboxes_of_suspended(text, integer) OWNER TO runner_definer;

-- Gauges for /metrics: counts only.
CREATE FUNCTION sandbox_counts() RETURNS TABLE (state text, sandboxes bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT s.state, count(*) FROM sandboxes s WHERE s.state <> 'ended' GROUP BY s.state;
END;
ALTER FUNCTION sandbox_counts() OWNER TO runner_definer;

-- Of this transaction's tenant: sandboxes that ended longer ago than it keeps them.
CREATE FUNCTION remove_expired_sandboxes(p_days integer, p_limit integer) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH chosen AS (
        SELECT s.tenant_id, s.sandbox_id FROM sandboxes s JOIN tenants t USING (tenant_id)
        WHERE s.tenant_id = app_tenant() AND s.ended_at
              < now() - make_interval(days => COALESCE(t.retention_days, p_days))
        ORDER BY s.ended_at LIMIT p_limit FOR UPDATE OF s SKIP LOCKED
    ), gone AS (
        DELETE FROM sandboxes s USING chosen c
        WHERE s.tenant_id = c.tenant_id AND s.sandbox_id = c.sandbox_id
        RETURNING 1
    )
    SELECT count(*) FROM gone;
END;
ALTER FUNCTION remove_expired_sandboxes(integer, integer) OWNER TO runner_definer;

CREATE OR REPLACE FUNCTION tenants_with_expired(p_days integer, p_grace interval,
                                                p_abandoned interval)
    RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT t.tenant_id FROM tenants t
    WHERE EXISTS (SELECT FROM executions e WHERE e.tenant_id = t.tenant_id AND e.ended_at
                  < now() - make_interval(days => COALESCE(t.retention_days, p_days)))
       OR EXISTS (SELECT FROM sandboxes s WHERE s.tenant_id = t.tenant_id AND s.ended_at
                  < now() - make_interval(days => COALESCE(t.retention_days, p_days)))
       OR EXISTS (SELECT FROM files f WHERE f.tenant_id = t.tenant_id AND f.expires_at <= now())
       OR EXISTS (SELECT FROM objects o WHERE o.tenant_id = t.tenant_id AND o.state <> 'kept'
                  AND o.since < now() - CASE o.state WHEN 'doomed' THEN p_grace
                                                     ELSE p_abandoned END);
END;

REVOKE ALL ON FUNCTION
    renew_sandbox_leases(text, text, interval), sandboxes_of_node(text),
    expired_sandbox_leases(integer), sandboxes_of_suspended(text, integer),
    remove_expired_sandboxes(integer, integer), sandbox_counts()
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    renew_sandbox_leases(text, text, interval), sandboxes_of_node(text),
    expired_sandbox_leases(integer), sandboxes_of_suspended(text, integer),
    remove_expired_sandboxes(integer, integer)
TO runner_worker;
GRANT EXECUTE ON FUNCTION sandbox_counts() TO runner_api;

-- A tenant is erased when nothing of it lives, sandboxes among it.
CREATE OR REPLACE FUNCTION erase_tenant() RETURNS TABLE (name text, removed bigint)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    remaining regclass[];
    next regclass;
BEGIN
    PERFORM FROM tenants t WHERE t.tenant_id = app_tenant() AND t.suspended_at IS NOT NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'only a tenant that is suspended can be erased'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM FROM executions e
    WHERE e.tenant_id = app_tenant() AND e.state IN ('starting', 'running');
    IF FOUND THEN
        RAISE EXCEPTION 'executions of this tenant are still being ended'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM FROM sandboxes s WHERE s.tenant_id = app_tenant() AND s.state <> 'ended';
    IF FOUND THEN
        RAISE EXCEPTION 'sandboxes of this tenant are still being ended'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    SELECT array_agg(c.oid::regclass) INTO remaining FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace;
    WHILE cardinality(remaining) > 0 LOOP
        -- One that no other of those that remain refers to.
        SELECT r INTO STRICT next FROM unnest(remaining) r
        WHERE NOT EXISTS (SELECT FROM pg_constraint k
                          WHERE k.contype = 'f' AND k.confrelid = r AND k.conrelid <> r
                            AND k.conrelid = ANY (remaining::oid[]))
        ORDER BY r::text LIMIT 1;
        EXECUTE format('DELETE FROM %s', next);
        GET DIAGNOSTICS removed = ROW_COUNT;
        name := next::text;
        RETURN NEXT;
        remaining := array_remove(remaining, next);
    END LOOP;
END
$$;

REVOKE CREATE ON SCHEMA public FROM runner_definer, runner_eraser;

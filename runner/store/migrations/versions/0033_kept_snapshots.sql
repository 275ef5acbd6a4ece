-- What a tenant's snapshots take of its storage, their quota, and how long they are kept.
ALTER TABLE tiers ADD COLUMN snapshot_bytes bigint NOT NULL DEFAULT 0 CHECK (snapshot_bytes >= 0);
UPDATE tiers SET snapshot_bytes = storage_bytes;
ALTER TABLE tiers ALTER COLUMN snapshot_bytes DROP DEFAULT;
ALTER TABLE tiers ADD COLUMN snapshot_days integer NOT NULL DEFAULT 0 CHECK (snapshot_days >= 0);
ALTER TABLE tiers ALTER COLUMN snapshot_days DROP DEFAULT;
COMMENT ON COLUMN tiers.snapshot_days IS 'At most, from when one was taken; 0 for no limit.';

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
           AS sandbox_memory_mb,
       COALESCE((t.quotas ->> 'sandbox_hours_per_day')::integer, r.sandbox_hours_per_day)
           AS sandbox_hours_per_day,
       COALESCE((t.quotas ->> 'snapshot_bytes')::bigint, r.snapshot_bytes) AS snapshot_bytes,
       COALESCE((t.quotas ->> 'snapshot_days')::integer, r.snapshot_days) AS snapshot_days
FROM tenants t JOIN tiers r USING (tier);

ALTER TABLE storage_usage ADD COLUMN snapshot_bytes bigint NOT NULL DEFAULT 0;
UPDATE storage_usage u SET snapshot_bytes = s.bytes
FROM (SELECT tenant_id, sum(bytes) AS bytes FROM objects
      WHERE state <> 'doomed' AND split_part(object_key, '/', 3) = 'snapshots' GROUP BY tenant_id) s
WHERE s.tenant_id = u.tenant_id;

-- Keeps storage_usage the sum of what is stored, and of the snapshots in it.
CREATE OR REPLACE FUNCTION count_object() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    more_bytes bigint := 0;
    more       bigint := 0;
    of_these   bigint := 0;
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.state <> 'doomed' THEN
        more_bytes := more_bytes - OLD.bytes;
        more := more - 1;
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.state <> 'doomed' THEN
        more_bytes := more_bytes + NEW.bytes;
        more := more + 1;
    END IF;
    IF split_part(COALESCE(NEW.object_key, OLD.object_key), '/', 3) = 'snapshots' THEN
        of_these := more_bytes;
    END IF;
    IF TG_OP = 'INSERT' THEN
        -- Locks the tenant's sum until commit: what a quota is then compared with is exact.
        INSERT INTO storage_usage AS u (tenant_id, bytes, objects, snapshot_bytes)
        VALUES (NEW.tenant_id, more_bytes, more, of_these)
        ON CONFLICT (tenant_id) DO UPDATE
        SET bytes = u.bytes + excluded.bytes, objects = u.objects + excluded.objects,
            snapshot_bytes = u.snapshot_bytes + excluded.snapshot_bytes;
    ELSIF more <> 0 OR more_bytes <> 0 THEN
        UPDATE storage_usage u SET bytes = u.bytes + more_bytes, objects = u.objects + more,
                                   snapshot_bytes = u.snapshot_bytes + of_these
        WHERE u.tenant_id = OLD.tenant_id;
    END IF;
    RETURN NULL;
END
$$;

ALTER TABLE snapshots ADD COLUMN expires_at timestamptz;
CREATE INDEX snapshots_expiry ON snapshots (tenant_id, expires_at) WHERE (expires_at IS NOT NULL);

CREATE POLICY across_tenants ON snapshots FOR SELECT TO runner_definer USING (true);

GRANT CREATE ON SCHEMA public TO runner_definer;

-- Of this transaction's tenant: snapshots whose time is over. Their objects are let go of.
CREATE FUNCTION remove_expired_snapshots(p_limit integer) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH chosen AS (
        SELECT s.tenant_id, s.snapshot_id FROM snapshots s
        WHERE s.tenant_id = app_tenant() AND s.expires_at <= now()
        ORDER BY s.expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM snapshots s USING chosen c
        WHERE s.tenant_id = c.tenant_id AND s.snapshot_id = c.snapshot_id
        RETURNING 1
    )
    SELECT count(*) FROM gone;
END;
ALTER FUNCTION remove_expired_snapshots(integer) OWNER TO runner_definer;

REVOKE CREATE ON SCHEMA public FROM runner_definer;
REVOKE ALL ON FUNCTION remove_expired_snapshots(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION remove_expired_snapshots(integer) TO runner_worker;
GRANT SELECT, UPDATE (expires_at), DELETE ON snapshots TO runner_definer;

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
       OR EXISTS (SELECT FROM snapshots s WHERE s.tenant_id = t.tenant_id AND s.expires_at <= now())
       OR EXISTS (SELECT FROM objects o WHERE o.tenant_id = t.tenant_id AND o.state <> 'kept'
                  AND o.since < now() - CASE o.state WHEN 'doomed' THEN p_grace
                                                     ELSE p_abandoned END);
END;

-- A key may also have been used for a snapshot, which it names by its object: that is there before
-- the snapshot is, and says whether it is being written, kept or given up.
ALTER TABLE idempotency_keys ADD COLUMN object_key text;
ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_one;
ALTER TABLE idempotency_keys ADD CONSTRAINT idempotency_keys_one
    CHECK (num_nonnulls(execution_id, sandbox_id, object_key) = 1);
ALTER TABLE idempotency_keys ADD CONSTRAINT idempotency_keys_object
    FOREIGN KEY (tenant_id, object_key) REFERENCES objects(tenant_id, object_key)
    ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX idempotency_keys_object ON idempotency_keys (tenant_id, object_key)
    WHERE (object_key IS NOT NULL);
-- A key is free again if nothing came of its first use.
GRANT DELETE ON idempotency_keys TO runner_api;

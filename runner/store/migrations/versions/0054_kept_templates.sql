-- How many templates a tenant may have, how many bytes of them, and how long one is kept untagged.

ALTER TABLE tiers
    ADD COLUMN templates integer NOT NULL DEFAULT 0 CHECK (templates >= 0),
    ADD COLUMN template_bytes bigint NOT NULL DEFAULT 0 CHECK (template_bytes >= 0),
    ADD COLUMN template_days integer NOT NULL DEFAULT 0 CHECK (template_days >= 0);
-- Until the deployment publishes its own, nothing that was permitted is refused.
UPDATE tiers SET templates = 1000, template_bytes = storage_bytes;
ALTER TABLE tiers ALTER COLUMN templates DROP DEFAULT, ALTER COLUMN template_bytes DROP DEFAULT,
                  ALTER COLUMN template_days DROP DEFAULT;
COMMENT ON COLUMN tiers.template_days IS
    'At most, from when the last tag was taken from one; 0 for no limit.';

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
       COALESCE((t.quotas ->> 'snapshot_days')::integer, r.snapshot_days) AS snapshot_days,
       COALESCE((t.quotas ->> 'templates')::integer, r.templates) AS templates,
       COALESCE((t.quotas ->> 'template_bytes')::bigint, r.template_bytes) AS template_bytes,
       COALESCE((t.quotas ->> 'template_days')::integer, r.template_days) AS template_days
FROM tenants t JOIN tiers r USING (tier);

ALTER TABLE templates ADD COLUMN untagged_at timestamptz;
ALTER TABLE templates NO FORCE ROW LEVEL SECURITY;
ALTER TABLE template_tags NO FORCE ROW LEVEL SECURITY;
UPDATE templates t SET untagged_at = now()
WHERE state = 'ready'
  AND NOT EXISTS (SELECT FROM template_tags g
                  WHERE g.tenant_id = t.tenant_id AND g.template_id = t.template_id);
ALTER TABLE template_tags FORCE ROW LEVEL SECURITY;
ALTER TABLE templates FORCE ROW LEVEL SECURITY;
CREATE INDEX templates_untagged ON templates (tenant_id, untagged_at)
WHERE (untagged_at IS NOT NULL);
COMMENT ON COLUMN templates.untagged_at IS 'Since when no tag stands for it; null while one does.';

DROP POLICY across_tenants ON templates;
CREATE POLICY across_tenants ON templates TO runner_definer USING (true) WITH CHECK (true);
CREATE POLICY across_tenants ON template_tags FOR SELECT TO runner_definer USING (true);
GRANT SELECT (name, state, untagged_at), UPDATE (untagged_at), DELETE ON templates TO runner_definer;
GRANT SELECT ON template_tags, public_templates TO runner_definer;
GRANT SELECT (image) ON sandboxes TO runner_definer;
GRANT SELECT (untagged_at) ON templates TO runner_worker;

GRANT CREATE ON SCHEMA public TO runner_definer;

-- Keeps templates.untagged_at.
CREATE FUNCTION tag_moves() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE templates t SET untagged_at = clock_timestamp()
        WHERE t.tenant_id = OLD.tenant_id AND t.template_id = OLD.template_id
          AND NOT EXISTS (SELECT FROM template_tags g WHERE g.tenant_id = t.tenant_id
                          AND g.template_id = t.template_id);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        UPDATE templates t SET untagged_at = NULL
        WHERE t.tenant_id = NEW.tenant_id AND t.template_id = NEW.template_id
          AND t.untagged_at IS NOT NULL;
    END IF;
    RETURN NULL;
END
$$;
ALTER FUNCTION tag_moves() OWNER TO runner_definer;
CREATE TRIGGER tag_moves AFTER INSERT OR DELETE OR UPDATE OF template_id ON template_tags
    FOR EACH ROW EXECUTE FUNCTION tag_moves();

-- Of this transaction's tenant: templates that no tag has stood for too long, and on which nothing
-- rests: no template, no sandbox that lives, no snapshot, and not everybody. Objects are let go of.
CREATE FUNCTION remove_expired_templates(p_limit integer) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH chosen AS (
        SELECT t.tenant_id, t.template_id FROM templates t JOIN tenant_quotas q USING (tenant_id)
        WHERE t.tenant_id = app_tenant() AND t.state = 'ready' AND q.template_days > 0
          AND t.untagged_at < now() - make_interval(days => q.template_days)
          AND NOT EXISTS (SELECT FROM public_templates p
                          WHERE p.tenant_id = t.tenant_id AND p.template_id = t.template_id)
          AND NOT EXISTS (SELECT FROM templates u
                          WHERE u.base_owner = t.tenant_id AND u.base_template = t.template_id)
          AND NOT EXISTS (SELECT FROM sandboxes s
                          WHERE s.image = t.name || '@' || t.template_id AND s.state <> 'ended')
          AND NOT EXISTS (SELECT FROM snapshots n WHERE n.image = t.name || '@' || t.template_id)
        ORDER BY t.untagged_at LIMIT p_limit
    ), gone AS (
        DELETE FROM templates t USING chosen c
        WHERE t.tenant_id = c.tenant_id AND t.template_id = c.template_id
        RETURNING 1
    )
    SELECT count(*) FROM gone;
END;
ALTER FUNCTION remove_expired_templates(integer) OWNER TO runner_definer;

REVOKE CREATE ON SCHEMA public FROM runner_definer;
REVOKE ALL ON FUNCTION tag_moves(), remove_expired_templates(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION remove_expired_templates(integer) TO runner_worker;

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
       OR EXISTS (SELECT FROM templates m JOIN tenant_quotas q USING (tenant_id)
                  WHERE m.tenant_id = t.tenant_id AND q.template_days > 0
                    AND m.untagged_at < now() - make_interval(days => q.template_days))
       OR EXISTS (SELECT FROM objects o WHERE o.tenant_id = t.tenant_id AND o.state <> 'kept'
                  AND o.since < now() - CASE o.state WHEN 'doomed' THEN p_grace
                                                     ELSE p_abandoned END);
END;

-- Sandboxes that live longer than one use of them: resumed by their use, with hours that a tier may
-- have of them, a receipt of their end, and what must be masked in them after a worker's restart.
ALTER TABLE sandboxes ADD COLUMN auto_resume boolean NOT NULL DEFAULT false;
ALTER TABLE sandboxes ADD COLUMN masks bytea;
ALTER TABLE sandboxes ADD CONSTRAINT sandboxes_masks CHECK (masks IS NULL OR state <> 'ended');
COMMENT ON COLUMN sandboxes.auto_resume IS 'Whether its use resumes it if it is paused.';
COMMENT ON COLUMN sandboxes.masks IS
    'Every value of a secret that it was ever given, sealed: the worker''s alone to read.';
GRANT SELECT (auto_resume), INSERT (auto_resume), UPDATE (egress, egress_policy)
    ON sandboxes TO runner_api;
GRANT UPDATE (masks) ON sandboxes TO runner_worker;
-- To seal them, the worker may need the tenant's first data key: an operator's file may hold all of
-- the tenant's secrets.
GRANT INSERT ON secret_keys TO runner_worker;

CREATE TABLE sandbox_receipts (
    tenant_id  uuid NOT NULL,
    sandbox_id uuid NOT NULL,
    document   text NOT NULL,
    PRIMARY KEY (tenant_id, sandbox_id),
    FOREIGN KEY (tenant_id, sandbox_id) REFERENCES sandboxes ON DELETE CASCADE
);
COMMENT ON COLUMN sandbox_receipts.document IS
    'The signed text itself: parsed and written again, it might differ.';
ALTER TABLE sandbox_receipts ENABLE ROW LEVEL SECURITY;
ALTER TABLE sandbox_receipts FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON sandbox_receipts USING (tenant_id = app_tenant())
    WITH CHECK (tenant_id = app_tenant());
GRANT SELECT ON sandbox_receipts TO runner_api;
GRANT SELECT, INSERT ON sandbox_receipts TO runner_worker;

ALTER TABLE tiers ADD COLUMN sandbox_hours_per_day integer NOT NULL DEFAULT 1
    CHECK (sandbox_hours_per_day >= 0);
ALTER TABLE tiers ALTER COLUMN sandbox_hours_per_day DROP DEFAULT;
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
           AS sandbox_hours_per_day
FROM tenants t JOIN tiers r USING (tier);

-- A bare host was an HTTPS rule in spirit; now it says so.
ALTER TABLE executions ALTER COLUMN egress TYPE jsonb USING to_jsonb(egress);
ALTER TABLE executions ADD COLUMN egress_policy text;

ALTER TABLE events DROP CONSTRAINT events_kind_check;
ALTER TABLE events ADD CHECK (kind IN ('state', 'stdout', 'stderr', 'egress'));

CREATE TABLE egress_policies (
    tenant_id  uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name       text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    rules      jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, name)
);
ALTER TABLE egress_policies ENABLE ROW LEVEL SECURITY;
ALTER TABLE egress_policies FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON egress_policies USING (tenant_id = app_tenant())
    WITH CHECK (tenant_id = app_tenant());
GRANT SELECT, INSERT, UPDATE, DELETE ON egress_policies TO runner_api;

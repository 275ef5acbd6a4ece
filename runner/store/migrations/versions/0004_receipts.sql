CREATE TABLE receipts (
    tenant_id    uuid NOT NULL,
    execution_id uuid NOT NULL,
    document     text NOT NULL,
    PRIMARY KEY (tenant_id, execution_id),
    FOREIGN KEY (tenant_id, execution_id) REFERENCES executions ON DELETE CASCADE
);
COMMENT ON COLUMN receipts.document IS 'The signed text itself: parsed and written again, it might differ.';
ALTER TABLE receipts ENABLE ROW LEVEL SECURITY;
ALTER TABLE receipts FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON receipts USING (tenant_id = app_tenant())
    WITH CHECK (tenant_id = app_tenant());
GRANT SELECT ON receipts TO runner_api;
GRANT SELECT, INSERT ON receipts TO runner_worker;

-- Of the deployment, not of a tenant: whoever holds a receipt may know what verifies it.
CREATE TABLE signing_keys (
    key_id       text PRIMARY KEY CHECK (key_id ~ '^[0-9a-f]{16}$'),
    public_key   text NOT NULL,
    published_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT ON signing_keys TO runner_api;
GRANT SELECT, INSERT ON signing_keys TO runner_worker;

-- The place that the chain gives a record is told to who appended it.
GRANT SELECT (tenant_id, seq, hash) ON audit_events TO runner_worker;

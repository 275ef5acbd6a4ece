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

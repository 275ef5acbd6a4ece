-- The metadata of executions, one row for each label, so that executions are found by it. An index
-- on the column itself would not be used: `@>` is not leakproof, and row-level security lets no
-- such operator read an index before the tenant is checked.
CREATE TABLE labels (
    tenant_id    uuid NOT NULL,
    execution_id uuid NOT NULL,
    key          text NOT NULL,
    value        text NOT NULL,
    PRIMARY KEY (tenant_id, execution_id, key),
    FOREIGN KEY (tenant_id, execution_id) REFERENCES executions ON DELETE CASCADE
);

-- What is there already. The owner is bound by forced policies, too.
ALTER TABLE executions NO FORCE ROW LEVEL SECURITY;
INSERT INTO labels (tenant_id, execution_id, key, value)
SELECT e.tenant_id, e.execution_id, l.key, l.value
FROM executions e, jsonb_each_text(e.metadata) l;
ALTER TABLE executions FORCE ROW LEVEL SECURITY;
CREATE INDEX labels_execution ON labels (tenant_id, key, value, execution_id);

ALTER TABLE labels ENABLE ROW LEVEL SECURITY;
ALTER TABLE labels FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON labels USING (tenant_id = app_tenant())
    WITH CHECK (tenant_id = app_tenant());
GRANT SELECT, INSERT ON labels TO runner_api;

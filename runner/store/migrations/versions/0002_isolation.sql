ALTER TABLE executions ADD COLUMN isolation text NOT NULL DEFAULT 'container'
    CHECK (isolation IN ('container', 'gvisor'));
ALTER TABLE executions ALTER COLUMN isolation DROP DEFAULT;

ALTER TABLE tenants ADD COLUMN required_isolation text CHECK (required_isolation IN ('gvisor'));
COMMENT ON COLUMN tenants.required_isolation IS 'NULL: the tenant may choose.';

-- What is stored already had a new interpreter, in a sandbox of its own.
ALTER TABLE executions
    ADD COLUMN interpret boolean NOT NULL DEFAULT false,
    ADD COLUMN reuse boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN executions.interpret IS 'Python that an interpreter which is loaded may run.';
COMMENT ON COLUMN executions.reuse IS 'May be run where the tenant''s executions were before.';

ALTER TABLE tenants ADD COLUMN reuse boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN tenants.reuse IS 'Whether its executions may ask for reuse.';
GRANT UPDATE (reuse) ON tenants TO runner_operator;

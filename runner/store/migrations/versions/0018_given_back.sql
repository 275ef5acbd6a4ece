ALTER TABLE executions ADD COLUMN given_back integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN executions.given_back IS
    'Attempts that failed before their program began, by a fault of a node: they count for nothing.';
GRANT UPDATE (given_back) ON executions TO runner_worker;

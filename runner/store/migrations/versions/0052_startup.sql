-- A template may name a command that runs in each of its sandboxes, and one that says when they are ready.

ALTER TABLE templates
    ADD COLUMN start_command text CHECK (length(start_command) BETWEEN 1 AND 65536),
    ADD COLUMN ready_command text CHECK (length(ready_command) BETWEEN 1 AND 65536),
    ADD COLUMN ready_s integer CHECK (ready_s BETWEEN 1 AND 600),
    ADD CONSTRAINT templates_startup
        CHECK ((num_nonnulls(start_command, ready_command) > 0) = (ready_s IS NOT NULL));
COMMENT ON COLUMN templates.start_command IS 'Runs in every sandbox that is made from it.';
COMMENT ON COLUMN templates.ready_command IS
    'Repeated in a new sandbox until it exits with 0; nobody uses the sandbox before.';
COMMENT ON COLUMN templates.ready_s IS 'Seconds that the ready command has for that.';
GRANT UPDATE (start_command, ready_command, ready_s) ON templates TO runner_api;

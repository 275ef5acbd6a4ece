-- Templates say what their sandboxes may use, and in which folder processes start.

ALTER TABLE templates
    ADD COLUMN limits jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN workdir text CHECK (length(workdir) BETWEEN 1 AND 4096);
COMMENT ON COLUMN templates.limits IS
    'Resources of its sandboxes that differ from the default size''s.';
COMMENT ON COLUMN templates.workdir IS 'Where processes of its sandboxes start; NULL: at home.';
GRANT UPDATE (limits, workdir) ON templates TO runner_api;

ALTER TABLE sandboxes
    ADD COLUMN workdir text CHECK (length(workdir) BETWEEN 1 AND 4096);
COMMENT ON COLUMN sandboxes.workdir IS 'Where its processes start; NULL: at home.';
GRANT SELECT (workdir), INSERT (workdir) ON sandboxes TO runner_api;

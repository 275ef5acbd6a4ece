-- Templates name the user of their sandboxes.

ALTER TABLE templates
    ADD COLUMN username text CHECK (username ~ '^[a-z][a-z0-9_-]{0,30}$');
COMMENT ON COLUMN templates.username IS
    'The user of its sandboxes, whose home is /home/ and this name; NULL: that of its base.';
GRANT UPDATE (username) ON templates TO runner_api;
GRANT SELECT (username) ON templates TO runner_worker;

ALTER TABLE sandboxes
    ADD COLUMN username text CHECK (username ~ '^[a-z][a-z0-9_-]{0,30}$');
COMMENT ON COLUMN sandboxes.username IS 'The user of its processes; NULL: the image''s own.';
GRANT SELECT (username), INSERT (username) ON sandboxes TO runner_api;

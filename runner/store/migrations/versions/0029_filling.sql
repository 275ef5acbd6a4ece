-- A new sandbox that begins with files is not whole until they are there.

ALTER TABLE sandboxes ADD COLUMN filling boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN sandboxes.filling IS
    'Whether it is still given the files that it begins with; until then its time is short.';
GRANT SELECT (filling), INSERT (filling), UPDATE (filling) ON sandboxes TO runner_api;

-- A paused sandbox that a host without enough memory needs gone: if its tenant chose so, its node
-- keeps its files as a snapshot and ends it.
ALTER TABLE sandboxes ADD COLUMN on_shortage text NOT NULL DEFAULT 'keep'
    CHECK (on_shortage IN ('keep', 'snapshot'));
ALTER TABLE sandboxes ADD COLUMN kept_as uuid;
ALTER TABLE sandboxes DROP CONSTRAINT sandboxes_reason_check;
ALTER TABLE sandboxes ADD CONSTRAINT sandboxes_reason_check
    CHECK (reason IN ('killed', 'expired', 'max_life', 'out_of_memory', 'lost', 'start_failed',
                      'node_drained', 'tenant_suspended', 'protocol_violation', 'evicted',
                      'internal_error'));
ALTER TABLE sandboxes ADD CONSTRAINT sandboxes_kept_as
    CHECK ((reason IS NOT DISTINCT FROM 'evicted') = (kept_as IS NOT NULL));
COMMENT ON COLUMN sandboxes.on_shortage IS
    'What happens to it, while it is paused, if its host is short of memory.';
COMMENT ON COLUMN sandboxes.kept_as IS
    'The snapshot that holds the files of an evicted one; it may have been deleted since.';
GRANT SELECT (on_shortage, kept_as), INSERT (on_shortage), UPDATE (on_shortage)
    ON sandboxes TO runner_api;
GRANT UPDATE (kept_as) ON sandboxes TO runner_worker;
-- The worker takes such a snapshot itself.
REVOKE SELECT (tenant_id, expires_at) ON snapshots FROM runner_worker;
GRANT SELECT, INSERT ON snapshots TO runner_worker;
GRANT EXECUTE ON FUNCTION keep_object_as(text, bigint) TO runner_worker;

-- A tenant's standing says when its next snapshot ends. Workers read it, too: before they let a
-- sandbox out, and while they count what it uses.
GRANT SELECT (tenant_id, expires_at) ON snapshots TO runner_worker;

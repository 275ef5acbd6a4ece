-- name: begin
BEGIN;

-- name: begin_snapshot
BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;

-- name: name_tenant
SELECT set_config('app.tenant_id', %(tenant_id)s, true);

-- name: bound_statements
SELECT set_config('statement_timeout', %(milliseconds)s, true);

-- name: commit
COMMIT;

-- name: ping
SELECT 1;

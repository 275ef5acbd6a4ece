-- name: begin
BEGIN; SELECT set_config('app.tenant_id', {tenant_id}, true);

-- name: begin_snapshot
BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;
SELECT set_config('app.tenant_id', {tenant_id}, true);

-- name: begin_without_tenant
BEGIN;

-- name: commit
COMMIT;

-- name: ping
SELECT 1;

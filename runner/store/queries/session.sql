-- name: set_tenant
SELECT set_config('app.tenant_id', %(tenant_id)s, true);

-- name: snapshot
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;

-- name: ping
SELECT 1;

-- name: claim
-- Later statements of the transaction belong to its tenant, and may name it by `runner.claimed`. One
-- row, also if nothing was claimed.
SELECT c.tenant_id, c.execution_id, c.attempt,
       CASE WHEN c.execution_id IS NULL
            THEN NULLIF(current_setting('runner.left', true), '') END AS left_alone,
       set_config('app.tenant_id', COALESCE(c.tenant_id::text, ''), true),
       set_config('runner.claimed', COALESCE(c.execution_id::text, ''), true)
FROM (SELECT) once
LEFT JOIN claim_execution(%(node)s, %(instance)s, %(lease)s) c ON true;

-- name: take_up
SELECT set_config('runner.claimed', %(execution_id)s::text, true);

-- name: claimable
SELECT next_tenant() IS NOT NULL AS claimable;

-- name: expired
SELECT tenant_id, execution_id, attempt FROM expired_leases(%(limit)s);

-- name: end_leases_of_node
SELECT end_leases_of_node(%(node)s, %(instance)s) AS ended;

-- name: load_by_tenant
SELECT tenant, tier, suspended, waiting, active, concurrent, living, ended_last_minute
FROM load_by_tenant(%(limit)s);

-- name: lags
SELECT queue_oldest_s, queue_tenants, executions_overdue, sandboxes_overdue FROM deployment_lags();

-- name: state_counts
SELECT state, executions FROM state_counts();

-- name: of_suspended
SELECT tenant_id, execution_id FROM executions_of_suspended(%(limit)s);

-- name: waiting_everywhere
SELECT executions, tenants, claim_interval() AS interval_s FROM waiting_everywhere();

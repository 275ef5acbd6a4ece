-- name: tenants
SELECT tenant_id FROM tenants_with_expired(%(days)s, %(grace)s, %(abandoned)s) AS t (tenant_id);

-- name: executions
SELECT executions, events, input_files, artifacts
FROM remove_expired_executions(%(days)s, %(limit)s);

-- name: files
SELECT remove_expired_files(%(limit)s) AS files;

-- name: sandboxes
SELECT remove_expired_sandboxes(%(days)s, %(limit)s) AS sandboxes;

-- name: snapshots
SELECT remove_expired_snapshots(%(limit)s) AS snapshots;

-- name: templates
SELECT remove_expired_templates(%(limit)s) AS templates;

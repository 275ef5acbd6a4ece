-- A node reads a tenant's use of all its quotas: templates count unless their build was lost.
GRANT SELECT (due_at) ON templates TO runner_worker;

-- What a deployment of the first schema (0001) held: an execution with an artifact that ended, one
-- that ran, one that waited, and an audit log. Written as its code wrote it.
INSERT INTO tenants (tenant_id, name, max_limits) VALUES
    ('01938a00-0000-7000-8000-000000000001', 'first',
     '{"cpu": 2, "memory_mb": 2048, "pids": 256, "disk_mb": 1024, "timeout_s": 600, "output_kb": 1024}');

-- The key `rk_firstkey1_…`, of which only the hash is known.
INSERT INTO api_keys (key_id, tenant_id, prefix, hash, role, name) VALUES
    ('01938a00-0000-7000-8000-00000000000a', '01938a00-0000-7000-8000-000000000001', 'firstkey1',
     sha256('a token'), 'owner', 'first key');

INSERT INTO executions (tenant_id, execution_id, state, attempt, started_at, ended_at, lease_until,
                        event_seq, language, image, size, limits, egress, metadata, on_worker_loss,
                        argv, env, stdin, result)
SELECT '01938a00-0000-7000-8000-000000000001', id::uuid, state, attempt, started, ended, lease,
       attempt + 1, 'python', 'python', 'small',
       '{"cpu": 1, "memory_mb": 256, "pids": 64, "disk_mb": 64, "timeout_s": 30, "output_kb": 256}',
       '{}', '{"job": "7"}', loss, '{python3,-c,print(1)}', '{"A": "b"}', '', result::jsonb
FROM (VALUES
    ('01938a00-0000-7000-8000-000000000011', 'succeeded', 1, now(), now(), NULL::timestamptz, 'fail',
     '{"state": "succeeded", "reason": "completed", "detail": "", "exit_code": 0, "signal": null,
       "stdout": {"total_bytes": 2, "truncated": false},
       "stderr": {"total_bytes": 0, "truncated": false},
       "usage": {"wall_s": 0.5, "cpu_s": 0.1, "memory_peak_bytes": 1000, "pids_peak": 2},
       "image_digest": null, "profile_hash": null, "limits_hit": [], "artifacts_refused": []}'),
    ('01938a00-0000-7000-8000-000000000012', 'running', 1, now(), NULL, now() + interval '1 min',
     'retry', NULL),
    ('01938a00-0000-7000-8000-000000000013', 'queued', 0, NULL, NULL, NULL, 'fail', NULL)
) AS made (id, state, attempt, started, ended, lease, loss, result);

INSERT INTO input_files (tenant_id, execution_id, path, content) VALUES
    ('01938a00-0000-7000-8000-000000000001', '01938a00-0000-7000-8000-000000000011', 'in.txt', 'in');

INSERT INTO events (tenant_id, execution_id, seq, attempt, kind, data, chunk) VALUES
    ('01938a00-0000-7000-8000-000000000001', '01938a00-0000-7000-8000-000000000011', 1, 0, 'state',
     '{"state": "queued"}', ''),
    ('01938a00-0000-7000-8000-000000000001', '01938a00-0000-7000-8000-000000000011', 2, 1, 'stdout',
     '{}', '1');

INSERT INTO artifacts (tenant_id, execution_id, path, size, sha256, media_type, object_key) VALUES
    ('01938a00-0000-7000-8000-000000000001', '01938a00-0000-7000-8000-000000000011', 'out.txt', 11,
     encode(sha256('an artifact'), 'hex'), 'text/plain',
     'tenants/01938a00-0000-7000-8000-000000000001/executions/01938a00-0000-7000-8000-000000000011/1/0');

INSERT INTO idempotency_keys (tenant_id, key, request_hash, execution_id) VALUES
    ('01938a00-0000-7000-8000-000000000001', 'once', sha256('request'),
     '01938a00-0000-7000-8000-000000000011');

INSERT INTO audit_events (tenant_id, body)
SELECT '01938a00-0000-7000-8000-000000000001',
       '{"action":"' || action || '","actor":"key:firstkey1","at":"2026-11-23T16:30:1' || n
       || '.000000Z","id":"01938a00-0000-7000-8000-00000000010' || n
       || '","metadata":{},"outcome":"success","request_id":null,'
       || '"resource_id":"01938a00-0000-7000-8000-000000000011","resource_type":"execution",'
       || '"source_ip":null,"tenant":"01938a00-0000-7000-8000-000000000001","user_agent":null}'
FROM (VALUES (1, 'execution:submit'), (2, 'execution:start'), (3, 'execution:end')) AS e (n, action)
ORDER BY n;

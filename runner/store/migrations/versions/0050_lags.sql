GRANT CREATE ON SCHEMA public TO runner_definer;

-- How far the deployment is behind, in sums over all tenants.
CREATE FUNCTION deployment_lags(OUT queue_oldest_s double precision, OUT queue_tenants bigint,
                                OUT executions_overdue bigint, OUT sandboxes_overdue bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT (SELECT GREATEST(EXTRACT(EPOCH FROM clock_timestamp() - min(e.queued_at)), 0)
            FROM executions e WHERE e.state = 'queued')::double precision,
           (SELECT count(*) FROM queues q WHERE q.ready),
           (SELECT count(*) FROM executions e
            WHERE e.state IN ('starting', 'running') AND e.lease_until < clock_timestamp()),
           (SELECT count(*) FROM sandboxes s
            WHERE s.state <> 'ended' AND s.lease_until < clock_timestamp());
END;
ALTER FUNCTION deployment_lags() OWNER TO runner_definer;

-- Age of the oldest record that each sink has yet to get.
CREATE FUNCTION audit_undelivered() RETURNS TABLE (sink text, seconds double precision)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT c.sink, EXTRACT(EPOCH FROM now() - min(e.at::timestamptz))::double precision
    FROM audit_cursors c
    JOIN audit_heads h ON h.tenant_id = c.tenant_id AND h.seq > c.seq
    JOIN audit_events e ON e.tenant_id = c.tenant_id AND e.seq = c.seq + 1
    GROUP BY c.sink;
END;
ALTER FUNCTION audit_undelivered() OWNER TO runner_definer;

REVOKE CREATE ON SCHEMA public FROM runner_definer;
REVOKE ALL ON FUNCTION deployment_lags(), audit_undelivered() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION deployment_lags(), audit_undelivered() TO runner_api;

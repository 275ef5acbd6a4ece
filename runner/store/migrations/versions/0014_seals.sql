-- Whoever can write here could add a key of their own: files of the host say which are trusted.
DROP TABLE signing_keys;

-- Gauge for /metrics: the age of the oldest record that no checkpoint covers.
GRANT SELECT (at) ON audit_events TO runner_definer;
GRANT CREATE ON SCHEMA public TO runner_definer;
CREATE FUNCTION audit_unsealed_s() RETURNS double precision
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT COALESCE(EXTRACT(EPOCH FROM now() - min(e.at::timestamptz)), 0)::double precision
    FROM audit_heads h
    CROSS JOIN LATERAL (SELECT COALESCE(max(c.seq), 0) AS seq FROM audit_checkpoints c
                        WHERE c.tenant_id = h.tenant_id) newest
    JOIN audit_events e ON e.tenant_id = h.tenant_id AND e.seq = newest.seq + 1
    WHERE h.seq > newest.seq;
END;
ALTER FUNCTION audit_unsealed_s() OWNER TO runner_definer;
REVOKE ALL ON FUNCTION audit_unsealed_s() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_unsealed_s() TO runner_api;
REVOKE CREATE ON SCHEMA public FROM runner_definer;

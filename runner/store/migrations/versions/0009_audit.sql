-- Statements of the worker, signed outside the database: "record `seq` had this hash then".
-- No foreign key, as with the log: they outlive what they tell of.
CREATE TABLE audit_checkpoints (
    tenant_id  uuid NOT NULL,
    seq        bigint NOT NULL CHECK (seq > 0),
    document   text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, seq)
);
COMMENT ON COLUMN audit_checkpoints.document IS 'The signed text itself.';
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();

-- The one webhook of a tenant. The secret is made by the API, which cannot read it back.
CREATE TABLE audit_webhooks (
    tenant_id  uuid PRIMARY KEY REFERENCES secret_keys ON DELETE CASCADE,
    url        text NOT NULL CHECK (url ~ '^https://'),
    sealed     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- How far a tenant's log has been delivered to a sink: `tenant` is its own webhook, the others
-- are the deployment's.
CREATE TABLE audit_cursors (
    tenant_id uuid NOT NULL,
    sink      text NOT NULL CHECK (sink IN ('tenant', 'webhook', 'syslog')),
    seq       bigint NOT NULL DEFAULT 0 CHECK (seq >= 0),
    due_at    timestamptz NOT NULL DEFAULT now(),
    claim     uuid,
    failures  integer NOT NULL DEFAULT 0,
    problem   text,
    PRIMARY KEY (tenant_id, sink)
);
COMMENT ON COLUMN audit_cursors.due_at IS
    'When to try next: after a failure later and later, while a worker tries when its lease ends.';
CREATE INDEX audit_cursors_due ON audit_cursors (sink, due_at);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['audit_checkpoints', 'audit_webhooks', 'audit_cursors'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY tenant ON %I USING (tenant_id = app_tenant()) '
                       'WITH CHECK (tenant_id = app_tenant())', name);
    END LOOP;
END
$$;
-- What a tenant does to its own webhook cannot hold up what the operator is sent.
CREATE POLICY own_webhook ON audit_cursors AS RESTRICTIVE TO runner_api
    USING (sink = 'tenant') WITH CHECK (sink = 'tenant');

GRANT SELECT ON audit_checkpoints TO runner_api;
GRANT SELECT (tenant_id, url, created_at, updated_at), INSERT, DELETE,
    UPDATE (url, sealed, updated_at) ON audit_webhooks TO runner_api;
GRANT SELECT, INSERT, DELETE, UPDATE (due_at, failures, problem) ON audit_cursors TO runner_api;

GRANT SELECT, INSERT ON audit_checkpoints TO runner_worker;
GRANT SELECT ON audit_heads, audit_webhooks TO runner_worker;
GRANT SELECT, UPDATE (seq, due_at, claim, failures, problem) ON audit_cursors TO runner_worker;

CREATE POLICY across_tenants ON audit_checkpoints FOR SELECT TO runner_definer USING (true);
CREATE POLICY across_tenants ON audit_cursors TO runner_definer USING (true) WITH CHECK (true);
GRANT SELECT ON audit_checkpoints TO runner_definer;
GRANT SELECT, INSERT, UPDATE ON audit_cursors TO runner_definer;

-- An export waits for a checkpoint that covers it.
CREATE INDEX audit_events_export ON audit_events (tenant_id, seq) WHERE action = 'audit:export';
CREATE POLICY across_tenants ON audit_events FOR SELECT TO runner_definer USING (true);
GRANT SELECT (tenant_id, seq, action) ON audit_events TO runner_definer;

GRANT CREATE ON SCHEMA public TO runner_definer;

-- Whose chains differ from their newest checkpoint: it is that old, or an export waits.
CREATE FUNCTION audit_chains_due(p_age interval, p_except uuid[], p_limit integer)
    RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT h.tenant_id FROM audit_heads h
    LEFT JOIN LATERAL (SELECT c.seq, c.created_at FROM audit_checkpoints c
                       WHERE c.tenant_id = h.tenant_id ORDER BY c.seq DESC LIMIT 1) newest ON true
    WHERE h.seq <> COALESCE(newest.seq, 0) AND h.tenant_id <> ALL (p_except)
      AND (newest.seq IS NULL OR newest.created_at <= now() - p_age
           OR EXISTS (SELECT FROM audit_events e
                      WHERE e.tenant_id = h.tenant_id AND e.action = 'audit:export'
                        AND e.seq > newest.seq))
    ORDER BY newest.created_at NULLS FIRST LIMIT p_limit;
END;

-- The delivery that has been due for longest, for the caller alone until the lease ends.
CREATE FUNCTION claim_audit_delivery(p_sink text, p_lease interval)
    RETURNS TABLE (tenant_id uuid, seq bigint, failures integer, claim uuid)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF p_sink <> 'tenant' THEN
        -- The deployment's sinks get every chain, from its beginning.
        INSERT INTO audit_cursors (tenant_id, sink)
            SELECT h.tenant_id, p_sink FROM audit_heads h
            WHERE NOT EXISTS (SELECT FROM audit_cursors c
                              WHERE c.tenant_id = h.tenant_id AND c.sink = p_sink)
            ON CONFLICT DO NOTHING;
    END IF;
    RETURN QUERY
        UPDATE audit_cursors c SET claim = gen_random_uuid(), due_at = now() + p_lease
        WHERE c.sink = p_sink AND c.tenant_id = (
            SELECT d.tenant_id FROM audit_cursors d JOIN audit_heads h USING (tenant_id)
            WHERE d.sink = p_sink AND d.due_at <= now() AND h.seq > d.seq
            ORDER BY d.due_at LIMIT 1 FOR UPDATE OF d SKIP LOCKED)
        RETURNING c.tenant_id, c.seq, c.failures, c.claim;
END
$$;

ALTER FUNCTION audit_chains_due(interval, uuid[], integer) OWNER TO runner_definer;
ALTER FUNCTION claim_audit_delivery(text, interval) OWNER TO runner_definer;
REVOKE ALL ON FUNCTION audit_chains_due(interval, uuid[], integer), claim_audit_delivery(text, interval)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_chains_due(interval, uuid[], integer), claim_audit_delivery(text, interval)
    TO runner_worker;
REVOKE CREATE ON SCHEMA public FROM runner_definer;

-- Ports of living sandboxes that may be reached without an API key: by a token, or by anybody. A
-- token is stored as its hash. What is opened ends with its sandbox, and with its opener's right.
CREATE TABLE sandbox_ports (
    tenant_id  uuid NOT NULL,
    sandbox_id uuid NOT NULL,
    port       integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
    public     boolean NOT NULL,
    token_hash bytea CHECK (length(token_hash) = 32),
    opened_by  text NOT NULL,
    opened_at  timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, sandbox_id, port),
    FOREIGN KEY (tenant_id, sandbox_id) REFERENCES sandboxes ON DELETE CASCADE,
    CONSTRAINT sandbox_ports_token CHECK (public = (token_hash IS NULL))
);
CREATE UNIQUE INDEX sandbox_ports_found ON sandbox_ports (sandbox_id, port);
CREATE INDEX sandbox_ports_opened_by ON sandbox_ports (tenant_id, opened_by);

ALTER TABLE sandbox_ports ENABLE ROW LEVEL SECURITY;
ALTER TABLE sandbox_ports FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON sandbox_ports USING (tenant_id = app_tenant())
    WITH CHECK (tenant_id = app_tenant());
CREATE POLICY across_tenants ON sandbox_ports TO runner_definer USING (true) WITH CHECK (true);
GRANT SELECT (tenant_id, sandbox_id, port, public, opened_by, opened_at, expires_at), INSERT,
      DELETE
    ON sandbox_ports TO runner_api;
GRANT SELECT ON sandbox_ports TO runner_definer;

GRANT CREATE ON SCHEMA public TO runner_definer;

-- Whose an opened port is: who comes with a token, or with nothing, names no tenant.
CREATE FUNCTION find_sandbox_port(p_sandbox uuid, p_port integer)
    RETURNS TABLE (tenant_id uuid, token_hash bytea, expires_at timestamptz, tier text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT p.tenant_id, p.token_hash, p.expires_at, t.tier
    FROM sandbox_ports p JOIN sandboxes s USING (tenant_id, sandbox_id)
    JOIN tenants t USING (tenant_id)
    WHERE p.sandbox_id = p_sandbox AND p.port = p_port AND p.expires_at > now()
      AND s.state <> 'ended' AND t.suspended_at IS NULL;
END;
ALTER FUNCTION find_sandbox_port(uuid, integer) OWNER TO runner_definer;

REVOKE CREATE ON SCHEMA public FROM runner_definer;
REVOKE ALL ON FUNCTION find_sandbox_port(uuid, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_sandbox_port(uuid, integer) TO runner_api;

-- runner_operator: whoever runs the deployment. It makes, changes and deletes tenants; of what a
-- tenant stores it may delete everything and read nothing.
DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'runner_operator') THEN
        CREATE ROLE runner_operator LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
    END IF;
END
$$;
GRANT USAGE ON SCHEMA public TO runner_operator;

ALTER TABLE tenants
    ADD COLUMN tier text NOT NULL DEFAULT 'free' CHECK (tier IN ('free', 'pro', 'enterprise')),
    ADD COLUMN suspended_at timestamptz,
    ADD COLUMN suspended_why text CHECK ((suspended_why IS NULL) = (suspended_at IS NULL)),
    ADD COLUMN egress_ceiling jsonb;
COMMENT ON COLUMN tenants.egress_ceiling IS
    'Rules that bound this tenant''s, beside the deployment''s ceiling. NULL: that one alone.';

-- Projects are known by their names, which do not change.
CREATE TABLE projects (
    tenant_id     uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name          text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    description   text NOT NULL,
    egress_policy text,
    created_by    text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, name)
);
ALTER TABLE projects ENABLE ROW LEVEL SECURITY;
ALTER TABLE projects FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON projects USING (tenant_id = app_tenant())
    WITH CHECK (tenant_id = app_tenant());
GRANT SELECT, INSERT, DELETE, UPDATE (description, egress_policy, updated_at) ON projects
    TO runner_api;

ALTER TABLE executions
    ADD COLUMN project text,
    ADD FOREIGN KEY (tenant_id, project) REFERENCES projects ON DELETE SET NULL (project);
CREATE INDEX executions_by_project ON executions (tenant_id, project, execution_id)
    WHERE project IS NOT NULL;

-- API keys: what a key may do beyond its role's word, from where, until when, and who made it.
ALTER TABLE api_keys
    ADD COLUMN permissions  text[],
    ADD COLUMN networks     cidr[],
    ADD COLUMN created_by   text NOT NULL DEFAULT 'system:operator',
    ADD COLUMN last_used_at timestamptz,
    ADD COLUMN replaced_by  uuid;
COMMENT ON COLUMN api_keys.permissions IS 'Of its role''s, these alone. NULL: all of them.';
COMMENT ON COLUMN api_keys.networks IS 'Where it may be used from. NULL: anywhere.';
GRANT INSERT, UPDATE (expires_at, revoked_at, last_used_at, replaced_by) ON api_keys TO runner_api;

-- The platform's operators: keys that belong to no tenant.
CREATE TABLE operators (
    operator_id  uuid PRIMARY KEY,
    name         text NOT NULL,
    prefix       text NOT NULL UNIQUE,
    hash         bytea NOT NULL CHECK (length(hash) = 32),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
GRANT SELECT, UPDATE (last_used_at) ON operators TO runner_operator;

-- What the operator does to tenants. It lists all of them, and changes one in a transaction of its
-- own: with `true` for DELETE, one forgotten WHERE would end everybody.
CREATE POLICY operator ON tenants FOR SELECT TO runner_operator USING (true);
GRANT SELECT, INSERT, UPDATE (tier, max_concurrency, max_limits, required_isolation,
    suspended_at, suspended_why, egress_ceiling) ON tenants TO runner_operator;
GRANT INSERT ON api_keys, audit_events TO runner_operator;
GRANT SELECT (tenant_id, seq, hash) ON audit_events, audit_heads TO runner_operator;
GRANT SELECT (tenant_id, state) ON executions TO runner_operator;
-- Without SELECT: row-level security names the rows, their number is all that is told.
GRANT DELETE ON ALL TABLES IN SCHEMA public TO runner_operator;
REVOKE DELETE ON operators FROM runner_operator;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT DELETE ON TABLES TO runner_operator;

-- A tenant that goes takes its log with it; what is left is the platform's record of that.
CREATE OR REPLACE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_user = 'runner_operator' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;

GRANT CREATE ON SCHEMA public TO runner_definer;
DROP FUNCTION find_api_key(text);

-- The key behind a prefix with its tenant's standing, before its tenant is known. The caller
-- compares the hash, and the client's address with the networks.
CREATE FUNCTION find_api_key(p_prefix text)
    RETURNS TABLE (tenant_id uuid, key_id uuid, role text, hash bytea, permissions text[],
                   networks text[], tier text, suspended boolean, unused_for interval)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT k.tenant_id, k.key_id, k.role, k.hash, k.permissions, k.networks::text[], t.tier,
           t.suspended_at IS NOT NULL, now() - k.last_used_at
    FROM api_keys k JOIN tenants t USING (tenant_id)
    WHERE k.prefix = p_prefix AND k.revoked_at IS NULL
      AND (k.expires_at IS NULL OR k.expires_at > now());
END;

-- As before, of tenants that are not suspended.
CREATE OR REPLACE FUNCTION next_tenant() RETURNS uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT t.tenant_id FROM waiting_tenants() AS w (tenant_id) JOIN tenants t USING (tenant_id)
    WHERE t.suspended_at IS NULL
      AND t.max_concurrency > (SELECT count(*) FROM executions e
                               WHERE e.tenant_id = t.tenant_id
                                 AND e.state IN ('starting', 'running'))
    ORDER BY t.turn, t.tenant_id LIMIT 1;
END;

-- What suspended tenants still have waiting or running, and nobody has asked to end.
CREATE FUNCTION executions_of_suspended(p_limit integer)
    RETURNS TABLE (tenant_id uuid, execution_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT e.tenant_id, e.execution_id FROM tenants t JOIN executions e USING (tenant_id)
    WHERE t.suspended_at IS NOT NULL AND e.cancel_requested_at IS NULL
      AND e.state IN ('queued', 'starting', 'running')
    LIMIT p_limit;
END;

ALTER FUNCTION find_api_key(text) OWNER TO runner_definer;
ALTER FUNCTION executions_of_suspended(integer) OWNER TO runner_definer;
REVOKE ALL ON FUNCTION find_api_key(text), executions_of_suspended(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_api_key(text) TO runner_api;
GRANT EXECUTE ON FUNCTION executions_of_suspended(integer) TO runner_worker;
GRANT UPDATE (cancel_requested_at) ON executions TO runner_worker;
REVOKE CREATE ON SCHEMA public FROM runner_definer;

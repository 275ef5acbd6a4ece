-- One data key for each tenant, wrapped by a key-encryption key that is never stored here.
CREATE TABLE secret_keys (
    tenant_id uuid PRIMARY KEY REFERENCES tenants ON DELETE CASCADE,
    kek_id    text NOT NULL CHECK (kek_id <> ''),
    wrapped   bytea NOT NULL
);

CREATE TABLE secrets (
    tenant_id  uuid NOT NULL REFERENCES secret_keys ON DELETE CASCADE,
    name       text NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$'),
    sealed     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, name)
);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['secret_keys', 'secrets'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY tenant ON %I USING (tenant_id = app_tenant()) '
                       'WITH CHECK (tenant_id = app_tenant())', name);
    END LOOP;
END
$$;

-- What is sealed is written by the API and read by the worker, neither of them both.
GRANT SELECT (tenant_id, name, created_at, updated_at), INSERT, DELETE,
    UPDATE (sealed, updated_at) ON secrets TO runner_api;
GRANT SELECT, INSERT ON secret_keys TO runner_api;
GRANT SELECT ON secrets, secret_keys TO runner_worker;

-- A rotation asks across tenants which data keys are left; each is then written as its tenant.
CREATE POLICY across_tenants ON secret_keys FOR SELECT TO runner_definer USING (true);
GRANT SELECT ON secret_keys TO runner_definer;
GRANT CREATE ON SCHEMA public TO runner_definer;
CREATE FUNCTION secret_keys_not_under(p_kek text)
    RETURNS TABLE (tenant_id uuid, kek_id text, wrapped bytea)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT k.tenant_id, k.kek_id, k.wrapped FROM secret_keys k WHERE k.kek_id <> p_kek;
END;
ALTER FUNCTION secret_keys_not_under(text) OWNER TO runner_definer;
REVOKE ALL ON FUNCTION secret_keys_not_under(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION secret_keys_not_under(text) TO CURRENT_USER;
REVOKE CREATE ON SCHEMA public FROM runner_definer;

ALTER TABLE executions ADD COLUMN secret_env jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN executions.secret_env IS 'Environment variable to name of a secret; no values.';

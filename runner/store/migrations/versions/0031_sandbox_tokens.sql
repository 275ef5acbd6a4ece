-- Keys that were given a token of a sandbox which another key, or a user, has made. The key that
-- made it is in `created_by`. Tokens are computed, and stored nowhere.
CREATE TABLE sandbox_holders (
    tenant_id  uuid NOT NULL,
    sandbox_id uuid NOT NULL,
    prefix     text NOT NULL CHECK (prefix ~ '^[a-z2-7]{12}$'),
    PRIMARY KEY (tenant_id, sandbox_id, prefix),
    FOREIGN KEY (tenant_id, sandbox_id) REFERENCES sandboxes ON DELETE CASCADE
);

ALTER TABLE sandbox_holders ENABLE ROW LEVEL SECURITY;
ALTER TABLE sandbox_holders FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON sandbox_holders USING (tenant_id = app_tenant())
    WITH CHECK (tenant_id = app_tenant());
CREATE POLICY across_tenants ON sandbox_holders TO runner_definer USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON sandbox_holders TO runner_api;
GRANT SELECT ON sandbox_holders TO runner_definer;
GRANT SELECT (created_by) ON sandboxes TO runner_definer;

GRANT CREATE ON SCHEMA public TO runner_definer;

-- Who may hold a token of which living sandbox, newest sandboxes first: a signed address of a file
-- names neither. Prefixes of keys are no secrets, and prove nothing.
CREATE FUNCTION find_token_holders(p_sandbox uuid, p_limit integer)
    RETURNS TABLE (sandbox_id uuid, prefix text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT s.sandbox_id, substr(s.created_by, 5) AS prefix
    FROM sandboxes s
    WHERE s.state <> 'ended' AND s.created_by LIKE 'key:%'
      AND (p_sandbox IS NULL OR s.sandbox_id = p_sandbox)
    UNION
    SELECT h.sandbox_id, h.prefix
    FROM sandbox_holders h JOIN sandboxes s USING (tenant_id, sandbox_id)
    WHERE s.state <> 'ended' AND (p_sandbox IS NULL OR h.sandbox_id = p_sandbox)
    ORDER BY 1 DESC, 2
    LIMIT p_limit;
END;
ALTER FUNCTION find_token_holders(uuid, integer) OWNER TO runner_definer;

REVOKE CREATE ON SCHEMA public FROM runner_definer;
REVOKE ALL ON FUNCTION find_token_holders(uuid, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_token_holders(uuid, integer) TO runner_api;

CREATE UNIQUE INDEX sessions_by_id ON sessions (session_id);

-- Of keys, sessions and tenants, those that stand now: an id that is missing stands no more. The
-- role is NULL for a tenant, whose members an identity provider names.
GRANT CREATE ON SCHEMA public TO runner_definer;
CREATE FUNCTION rights_that_stand(p_keys uuid[], p_sessions uuid[], p_tenants uuid[],
                                  p_idle interval)
    RETURNS TABLE (id uuid, role text, suspended boolean)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT k.key_id, k.role, t.suspended_at IS NOT NULL
    FROM api_keys k JOIN tenants t USING (tenant_id)
    WHERE k.key_id = ANY (p_keys) AND k.revoked_at IS NULL
      AND (k.expires_at IS NULL OR k.expires_at > now())
    UNION ALL
    SELECT s.session_id, m.role, t.suspended_at IS NOT NULL
    FROM sessions s JOIN memberships m USING (tenant_id, user_id) JOIN tenants t USING (tenant_id)
    WHERE s.session_id = ANY (p_sessions) AND s.expires_at > now()
      AND s.last_used_at > now() - p_idle
    UNION ALL
    SELECT t.tenant_id, NULL, t.suspended_at IS NOT NULL
    FROM tenants t WHERE t.tenant_id = ANY (p_tenants);
END;
ALTER FUNCTION rights_that_stand(uuid[], uuid[], uuid[], interval) OWNER TO runner_definer;
REVOKE ALL ON FUNCTION rights_that_stand(uuid[], uuid[], uuid[], interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rights_that_stand(uuid[], uuid[], uuid[], interval) TO runner_api;
REVOKE CREATE ON SCHEMA public FROM runner_definer;

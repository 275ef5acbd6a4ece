-- Whom a subject of the identity provider stands for, in one tenant. Like a session, this ends with
-- the membership that it rests on.
CREATE TABLE identities (
    tenant_id   uuid NOT NULL,
    identity_id uuid NOT NULL,
    user_id     uuid NOT NULL,
    issuer      text NOT NULL CHECK (length(issuer) BETWEEN 1 AND 512),
    subject     text NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, identity_id),
    UNIQUE (issuer, subject, tenant_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES memberships(tenant_id, user_id) ON DELETE CASCADE
);
CREATE INDEX identities_by_user ON identities (tenant_id, user_id);
CREATE UNIQUE INDEX identities_by_id ON identities (identity_id);

ALTER TABLE identities ENABLE ROW LEVEL SECURITY;
ALTER TABLE identities FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON identities USING (tenant_id = app_tenant())
    WITH CHECK (tenant_id = app_tenant());
CREATE POLICY across_tenants ON identities FOR SELECT TO runner_definer USING (true);
GRANT SELECT ON identities TO runner_definer;
GRANT DELETE ON identities TO runner_eraser;

GRANT CREATE ON SCHEMA public TO runner_definer;

-- The members that a subject stands for: one if a tenant is named, else at most two, which tells
-- whether one has to be named.
CREATE FUNCTION find_identity(p_issuer text, p_subject text, p_tenant text)
    RETURNS TABLE (tenant_id uuid, identity_id uuid, user_id uuid, role text, tier text,
                   suspended boolean)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT i.tenant_id, i.identity_id, i.user_id, m.role, t.tier, t.suspended_at IS NOT NULL
    FROM identities i JOIN memberships m USING (tenant_id, user_id) JOIN tenants t USING (tenant_id)
    WHERE i.issuer = p_issuer AND i.subject = p_subject
      AND (p_tenant IS NULL OR t.name = p_tenant)
    ORDER BY m.created_at, i.tenant_id LIMIT 2;
END;
ALTER FUNCTION find_identity(text, text, text) OWNER TO runner_definer;
REVOKE ALL ON FUNCTION find_identity(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_identity(text, text, text) TO runner_api;

-- A member's login is a session, or a subject that stands for them.
DROP FUNCTION rights_that_stand(uuid[], uuid[], uuid[], interval);
CREATE FUNCTION rights_that_stand(p_keys uuid[], p_logins uuid[], p_tenants uuid[],
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
    WHERE s.session_id = ANY (p_logins) AND s.expires_at > now()
      AND s.last_used_at > now() - p_idle
    UNION ALL
    SELECT i.identity_id, m.role, t.suspended_at IS NOT NULL
    FROM identities i JOIN memberships m USING (tenant_id, user_id) JOIN tenants t USING (tenant_id)
    WHERE i.identity_id = ANY (p_logins)
    UNION ALL
    SELECT t.tenant_id, NULL, t.suspended_at IS NOT NULL
    FROM tenants t WHERE t.tenant_id = ANY (p_tenants);
END;
ALTER FUNCTION rights_that_stand(uuid[], uuid[], uuid[], interval) OWNER TO runner_definer;
REVOKE ALL ON FUNCTION rights_that_stand(uuid[], uuid[], uuid[], interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rights_that_stand(uuid[], uuid[], uuid[], interval) TO runner_api;
REVOKE CREATE ON SCHEMA public FROM runner_definer;

-- A person, of no tenant: there is one as long as there is a membership of theirs (see below).
-- Only functions of runner_definer reach the password; a tenant sees its members' addresses.
CREATE TABLE users (
    user_id    uuid PRIMARY KEY,
    email      text NOT NULL UNIQUE CHECK (email = lower(email) AND length(email) <= 254),
    password   text NOT NULL CHECK (password LIKE '$argon2id$%'),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN users.password IS 'Argon2id in PHC format: a hash, with its salt and parameters.';

CREATE TABLE memberships (
    tenant_id  uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    user_id    uuid NOT NULL REFERENCES users,
    role       text NOT NULL CHECK (role IN ('owner', 'admin', 'developer', 'viewer')),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, user_id)
);
CREATE INDEX memberships_by_user ON memberships (user_id);

CREATE TABLE invitations (
    tenant_id     uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    invitation_id uuid NOT NULL,
    email         text NOT NULL CHECK (email = lower(email) AND length(email) <= 254),
    role          text NOT NULL CHECK (role IN ('owner', 'admin', 'developer', 'viewer')),
    hash          bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    created_by    text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, invitation_id),
    UNIQUE (tenant_id, email)
);

-- A session acts in one tenant: it ends with the membership that it rests on.
CREATE TABLE sessions (
    tenant_id    uuid NOT NULL,
    session_id   uuid NOT NULL,
    user_id      uuid NOT NULL,
    hash         bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    ip           text,
    user_agent   text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, session_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES memberships ON DELETE CASCADE
);
CREATE INDEX sessions_by_user ON sessions (user_id);

-- Made by the operator for who has forgotten a password: no mail is sent.
CREATE TABLE password_resets (
    user_id    uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    hash       bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    expires_at timestamptz NOT NULL
);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['memberships', 'invitations', 'sessions'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY tenant ON %I USING (tenant_id = app_tenant()) '
                       'WITH CHECK (tenant_id = app_tenant())', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['users', 'password_resets'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY platform ON %I TO runner_definer USING (true) '
                       'WITH CHECK (true)', name);
    END LOOP;
END
$$;
-- The subquery is itself bound to the tenant, by the policy on memberships.
CREATE POLICY members ON users FOR SELECT TO runner_api, CURRENT_USER
    USING (EXISTS (SELECT 1 FROM memberships m WHERE m.user_id = users.user_id));
GRANT SELECT (user_id, email, created_at) ON users TO runner_api;
GRANT SELECT, INSERT, DELETE, UPDATE (role) ON memberships TO runner_api;
GRANT SELECT (tenant_id, invitation_id, email, role, created_by, created_at, expires_at),
    INSERT, DELETE ON invitations TO runner_api;
GRANT SELECT (tenant_id, session_id, user_id), INSERT, UPDATE (last_used_at) ON sessions
    TO runner_api;
REVOKE DELETE ON users, password_resets FROM runner_operator;

-- Before a tenant is known, a person is looked up by what they present.
CREATE POLICY across_tenants ON memberships FOR SELECT TO runner_definer USING (true);
CREATE POLICY across_tenants ON invitations FOR SELECT TO runner_definer USING (true);
CREATE POLICY across_tenants ON sessions FOR SELECT TO runner_definer USING (true);
CREATE POLICY ending ON sessions FOR DELETE TO runner_definer USING (true);
GRANT SELECT ON memberships, invitations TO runner_definer;
GRANT SELECT, DELETE ON sessions TO runner_definer;
GRANT SELECT, INSERT, UPDATE (password), DELETE ON users TO runner_definer;
GRANT SELECT, INSERT, UPDATE, DELETE ON password_resets TO runner_definer;
GRANT CREATE ON SCHEMA public TO runner_definer;

-- Who is to be logged in where: in the tenant of that name, else where they have been longest.
CREATE FUNCTION find_login(p_email text, p_tenant text)
    RETURNS TABLE (user_id uuid, password text, tenant_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT u.user_id, u.password, m.tenant_id
    FROM users u JOIN memberships m USING (user_id) JOIN tenants t ON t.tenant_id = m.tenant_id
    WHERE u.email = p_email AND (p_tenant IS NULL OR t.name = p_tenant)
    ORDER BY m.created_at, m.tenant_id LIMIT 1;
END;

CREATE FUNCTION find_session(p_hash bytea, p_idle interval)
    RETURNS TABLE (tenant_id uuid, session_id uuid, user_id uuid, role text, tier text,
                   suspended boolean, unused_for interval)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT s.tenant_id, s.session_id, s.user_id, m.role, t.tier, t.suspended_at IS NOT NULL,
           now() - s.last_used_at
    FROM sessions s JOIN memberships m USING (tenant_id, user_id) JOIN tenants t USING (tenant_id)
    WHERE s.hash = p_hash AND s.expires_at > now() AND s.last_used_at > now() - p_idle;
END;

-- What a person may know of themselves, whichever tenant they act in.
CREATE FUNCTION memberships_of(p_user uuid)
    RETURNS TABLE (tenant text, role text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT t.name, m.role FROM memberships m JOIN tenants t USING (tenant_id)
    WHERE m.user_id = p_user ORDER BY m.created_at, m.tenant_id;
END;

CREATE FUNCTION sessions_of(p_user uuid, p_idle interval)
    RETURNS TABLE (session_id uuid, tenant text, ip text, user_agent text,
                   created_at timestamptz, last_used_at timestamptz, expires_at timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT s.session_id, t.name, s.ip, s.user_agent, s.created_at, s.last_used_at, s.expires_at
    FROM sessions s JOIN tenants t USING (tenant_id)
    WHERE s.user_id = p_user AND s.expires_at > now() AND s.last_used_at > now() - p_idle
    ORDER BY s.session_id DESC;
END;

-- One session of a person's, or with NULL all of them; how many there were.
CREATE FUNCTION end_sessions(p_user uuid, p_session uuid) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH ended AS (
        DELETE FROM sessions WHERE user_id = p_user AND (p_session IS NULL OR session_id = p_session)
        RETURNING 1)
    SELECT count(*) FROM ended;
END;

-- Sessions of a person that are over are cleared away when they log in again.
CREATE FUNCTION clear_sessions(p_user uuid, p_idle interval) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    DELETE FROM sessions
    WHERE user_id = p_user AND (expires_at <= now() OR last_used_at <= now() - p_idle);
END;

CREATE FUNCTION password_of(p_user uuid) RETURNS TABLE (email text, password text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT u.email, u.password FROM users u WHERE u.user_id = p_user;
END;

-- Compare and set: of two changes at once, one finds that the password is no longer the old one.
CREATE FUNCTION replace_password(p_user uuid, p_old text, p_new text) RETURNS boolean
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH changed AS (
        UPDATE users SET password = p_new WHERE user_id = p_user AND password = p_old RETURNING 1)
    SELECT EXISTS (SELECT 1 FROM changed);
END;

-- Whether it is the password still, and until the end of the transaction: a change of it waits, and
-- then ends the session that was begun meanwhile.
CREATE FUNCTION hold_password(p_user uuid, p_password text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM 1 FROM users u WHERE u.user_id = p_user AND u.password = p_password FOR SHARE;
    RETURN FOUND;
END
$$;

-- An invitation that can still be taken up, and the person of that address if there is one.
CREATE FUNCTION find_invitation(p_hash bytea)
    RETURNS TABLE (tenant_id uuid, invitation_id uuid, email text, role text, created_by text,
                   user_id uuid, password text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT i.tenant_id, i.invitation_id, i.email, i.role, i.created_by, u.user_id, u.password
    FROM invitations i LEFT JOIN users u USING (email)
    WHERE i.hash = p_hash AND i.expires_at > now();
END;

CREATE FUNCTION add_user(p_user uuid, p_email text, p_password text) RETURNS boolean
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH added AS (
        INSERT INTO users (user_id, email, password) VALUES (p_user, p_email, p_password)
        ON CONFLICT (email) DO NOTHING RETURNING 1)
    SELECT EXISTS (SELECT 1 FROM added);
END;

CREATE FUNCTION issue_reset(p_email text, p_hash bytea, p_expires timestamptz) RETURNS uuid
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    INSERT INTO password_resets AS r (user_id, hash, expires_at)
    SELECT u.user_id, p_hash, p_expires FROM users u WHERE u.email = p_email
    ON CONFLICT (user_id) DO UPDATE SET hash = EXCLUDED.hash, expires_at = EXCLUDED.expires_at
    RETURNING r.user_id;
END;

CREATE FUNCTION find_reset(p_hash bytea)
    RETURNS TABLE (user_id uuid, email text, password text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT u.user_id, u.email, u.password FROM password_resets r JOIN users u USING (user_id)
    WHERE r.hash = p_hash AND r.expires_at > now();
END;

CREATE FUNCTION take_reset(p_hash bytea) RETURNS boolean
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH taken AS (
        DELETE FROM password_resets WHERE hash = p_hash AND expires_at > now() RETURNING 1)
    SELECT EXISTS (SELECT 1 FROM taken);
END;

-- A tenant as an identity provider names it.
CREATE FUNCTION tenant_standing(p_name text)
    RETURNS TABLE (tenant_id uuid, tier text, suspended boolean)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT t.tenant_id, t.tier, t.suspended_at IS NOT NULL FROM tenants t WHERE t.name = p_name;
END;

-- Nothing is kept of a person who belongs to no tenant, and their address is free again. The lock
-- makes a membership that is being added elsewhere be seen.
CREATE FUNCTION forget_user() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM 1 FROM users u WHERE u.user_id = OLD.user_id FOR UPDATE;
    DELETE FROM users u WHERE u.user_id = OLD.user_id
        AND NOT EXISTS (SELECT 1 FROM memberships m WHERE m.user_id = u.user_id);
    RETURN NULL;
END
$$;

DO $$
DECLARE
    signature regprocedure;
BEGIN
    FOREACH signature IN ARRAY ARRAY[
        'find_login(text, text)', 'find_session(bytea, interval)', 'memberships_of(uuid)',
        'sessions_of(uuid, interval)', 'end_sessions(uuid, uuid)', 'clear_sessions(uuid, interval)',
        'password_of(uuid)', 'hold_password(uuid, text)', 'replace_password(uuid, text, text)',
        'find_invitation(bytea)', 'add_user(uuid, text, text)', 'find_reset(bytea)', 'take_reset(bytea)',
        'tenant_standing(text)'
    ]::regprocedure[] LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO runner_definer', signature);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO runner_api', signature);
    END LOOP;
END
$$;
ALTER FUNCTION issue_reset(text, bytea, timestamptz) OWNER TO runner_definer;
REVOKE ALL ON FUNCTION issue_reset(text, bytea, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION issue_reset(text, bytea, timestamptz) TO CURRENT_USER;
ALTER FUNCTION forget_user() OWNER TO runner_definer;
REVOKE ALL ON FUNCTION forget_user() FROM PUBLIC;
CREATE TRIGGER forget_user AFTER DELETE ON memberships
    FOR EACH ROW EXECUTE FUNCTION forget_user();
REVOKE CREATE ON SCHEMA public FROM runner_definer;

-- What a login may do to others' rows, secrets and waiting, and no more than it needs.

-- 1. Tenants are ended whole. runner_eraser: no login, and bound to one tenant by its policies; it
-- owns the one function that ends a tenant, so that nobody deletes single records of the log or of
-- usage.
DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'runner_eraser') THEN
        CREATE ROLE runner_eraser NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
    END IF;
END
$$;
GRANT runner_eraser TO CURRENT_USER;
GRANT USAGE ON SCHEMA public TO runner_eraser;
REVOKE DELETE ON ALL TABLES IN SCHEMA public FROM runner_operator;
ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE DELETE ON TABLES FROM runner_operator;
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT c.relname FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
        WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
    LOOP
        EXECUTE format('GRANT DELETE ON %I TO runner_eraser', name);
    END LOOP;
END
$$;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT DELETE ON TABLES TO runner_eraser;
GRANT SELECT (tenant_id, suspended_at) ON tenants TO runner_eraser;
GRANT SELECT (tenant_id, state) ON executions TO runner_eraser;

-- The platform's own log belongs to no tenant: there never is one that could be ended with it.
ALTER TABLE tenants ADD CHECK (tenant_id <> '00000000-0000-0000-0000-000000000000');

CREATE OR REPLACE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_user = 'runner_eraser' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;

GRANT CREATE ON SCHEMA public TO runner_definer, runner_eraser;

-- Deletes every row of this transaction's tenant, which must be suspended and run nothing; returns
-- how many there were in each table. DELETE has no WHERE: the policies name the rows.
CREATE FUNCTION erase_tenant() RETURNS TABLE (name text, removed bigint)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    remaining regclass[];
    next regclass;
BEGIN
    PERFORM FROM tenants t WHERE t.tenant_id = app_tenant() AND t.suspended_at IS NOT NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'only a tenant that is suspended can be erased'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM FROM executions e
    WHERE e.tenant_id = app_tenant() AND e.state IN ('starting', 'running');
    IF FOUND THEN
        RAISE EXCEPTION 'executions of this tenant are still being ended'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    SELECT array_agg(c.oid::regclass) INTO remaining FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace;
    WHILE cardinality(remaining) > 0 LOOP
        -- One that no other of those that remain refers to.
        SELECT r INTO STRICT next FROM unnest(remaining) r
        WHERE NOT EXISTS (SELECT FROM pg_constraint k
                          WHERE k.contype = 'f' AND k.confrelid = r AND k.conrelid <> r
                            AND k.conrelid = ANY (remaining::oid[]))
        ORDER BY r::text LIMIT 1;
        EXECUTE format('DELETE FROM %s', next);
        GET DIAGNOSTICS removed = ROW_COUNT;
        name := next::text;
        RETURN NEXT;
        remaining := array_remove(remaining, next);
    END LOOP;
END
$$;
ALTER FUNCTION erase_tenant() OWNER TO runner_eraser;
REVOKE ALL ON FUNCTION erase_tenant() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erase_tenant() TO runner_operator;

-- 2. Before a tenant is known, a person is found by what they present: an address (find_login) or a
-- token (find_session, find_invitation, find_reset). Everything else that is done to a person is
-- done in a tenant that they belong to.
CREATE FUNCTION is_member(p_user uuid) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT EXISTS (SELECT FROM memberships m
                   WHERE m.tenant_id = app_tenant() AND m.user_id = p_user);
END;
ALTER FUNCTION is_member(uuid) OWNER TO runner_definer;
REVOKE ALL ON FUNCTION is_member(uuid) FROM PUBLIC;

CREATE OR REPLACE FUNCTION memberships_of(p_user uuid)
    RETURNS TABLE (tenant text, role text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT t.name, m.role FROM memberships m JOIN tenants t USING (tenant_id)
    WHERE m.user_id = p_user AND is_member(p_user) ORDER BY m.created_at, m.tenant_id;
END;

CREATE OR REPLACE FUNCTION sessions_of(p_user uuid, p_idle interval)
    RETURNS TABLE (session_id uuid, tenant text, ip text, user_agent text,
                   created_at timestamptz, last_used_at timestamptz, expires_at timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT s.session_id, t.name, s.ip, s.user_agent, s.created_at, s.last_used_at, s.expires_at
    FROM sessions s JOIN tenants t USING (tenant_id)
    WHERE s.user_id = p_user AND is_member(p_user)
      AND s.expires_at > now() AND s.last_used_at > now() - p_idle
    ORDER BY s.session_id DESC;
END;

CREATE OR REPLACE FUNCTION end_sessions(p_user uuid, p_session uuid) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH ended AS (
        DELETE FROM sessions
        WHERE user_id = p_user AND is_member(p_user)
          AND (p_session IS NULL OR session_id = p_session)
        RETURNING 1)
    SELECT count(*) FROM ended;
END;

CREATE OR REPLACE FUNCTION clear_sessions(p_user uuid, p_idle interval) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    DELETE FROM sessions
    WHERE user_id = p_user AND is_member(p_user)
      AND (expires_at <= now() OR last_used_at <= now() - p_idle);
END;

CREATE OR REPLACE FUNCTION password_of(p_user uuid) RETURNS TABLE (email text, password text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT u.email, u.password FROM users u WHERE u.user_id = p_user AND is_member(p_user);
END;

CREATE OR REPLACE FUNCTION hold_password(p_user uuid, p_password text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM 1 FROM users u
    WHERE u.user_id = p_user AND u.password = p_password AND is_member(p_user) FOR SHARE;
    RETURN FOUND;
END
$$;

CREATE OR REPLACE FUNCTION replace_password(p_user uuid, p_old text, p_new text) RETURNS boolean
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH changed AS (
        UPDATE users SET password = p_new
        WHERE user_id = p_user AND password = p_old AND is_member(p_user) RETURNING 1)
    SELECT EXISTS (SELECT 1 FROM changed);
END;

-- The operator's token is what permits it, whichever tenants the person belongs to: it is used up,
-- the password is set, and every session ends. No row if somebody was first.
DROP FUNCTION take_reset(bytea);
CREATE FUNCTION reset_password(p_hash bytea, p_new text)
    RETURNS TABLE (user_id uuid, sessions_ended bigint)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    DELETE FROM password_resets r WHERE r.hash = p_hash AND r.expires_at > now()
    RETURNING r.user_id INTO user_id;
    IF FOUND THEN
        UPDATE users u SET password = p_new WHERE u.user_id = reset_password.user_id;
        -- A statement of its own: it sees the session that a login has stored meanwhile.
        DELETE FROM sessions s WHERE s.user_id = reset_password.user_id;
        GET DIAGNOSTICS sessions_ended = ROW_COUNT;
        RETURN NEXT;
    END IF;
END
$$;

-- Who is added was invited to this transaction's tenant under that address.
CREATE OR REPLACE FUNCTION add_user(p_user uuid, p_email text, p_password text) RETURNS boolean
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH added AS (
        INSERT INTO users (user_id, email, password)
        SELECT p_user, p_email, p_password FROM invitations i
        WHERE i.tenant_id = app_tenant() AND i.email = p_email AND i.expires_at > now()
        ON CONFLICT (email) DO NOTHING RETURNING 1)
    SELECT EXISTS (SELECT 1 FROM added);
END;

-- 3. Claims run one after another under a lock that needs a right: any login can hold an advisory
-- lock, nobody but this function's owner this table's.
CREATE TABLE claim_turn ();
COMMENT ON TABLE claim_turn IS 'Without rows: whoever claims an execution locks it.';
REVOKE DELETE ON claim_turn FROM runner_eraser;
GRANT UPDATE ON claim_turn TO runner_definer;

-- As in 0010, under that lock.
CREATE OR REPLACE FUNCTION claim_execution(p_node text, p_instance text, p_lease interval)
    RETURNS TABLE (tenant_id uuid, execution_id uuid, attempt integer)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    tried uuid[] := '{}';
    turn queues;
    chosen uuid;
    claimed executions;
BEGIN
    LOCK TABLE claim_turn IN EXCLUSIVE MODE;
    LOOP
        SELECT q.* INTO turn FROM queues q JOIN tenant_quotas t USING (tenant_id)
        WHERE q.ready AND NOT t.suspended AND q.active < t.concurrent
          AND q.tenant_id <> ALL (tried)
        ORDER BY q.load, q.served, q.tenant_id LIMIT 1 FOR NO KEY UPDATE OF q SKIP LOCKED;
        IF NOT FOUND THEN
            SELECT q.* INTO turn FROM queues q JOIN tenant_quotas t USING (tenant_id)
            WHERE q.ready AND NOT t.suspended AND q.active < t.concurrent
              AND q.tenant_id <> ALL (tried)
            ORDER BY q.load, q.served, q.tenant_id LIMIT 1 FOR NO KEY UPDATE OF q;
        END IF;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        SELECT e.execution_id INTO chosen FROM executions e
        WHERE e.tenant_id = turn.tenant_id AND e.state = 'queued'
        ORDER BY e.queued_at, e.execution_id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
        EXIT WHEN FOUND;
        -- What it has waiting is being cancelled.
        tried := tried || turn.tenant_id;
    END LOOP;
    UPDATE executions e
    SET state = 'starting', attempt = e.attempt + 1, node = p_node, instance = p_instance,
        claimed_at = clock_timestamp(), lease_until = clock_timestamp() + p_lease,
        event_seq = e.event_seq + 1
    WHERE e.tenant_id = turn.tenant_id AND e.execution_id = chosen AND e.state = 'queued'
    RETURNING e.* INTO STRICT claimed;
    UPDATE queue_clock c
    SET served = GREATEST(c.served, turn.served),
        -- Smoothed over some ten claims; only of claims for which something waited before.
        interval_s = CASE
            WHEN NOT c.backlog THEN c.interval_s
            ELSE EXTRACT(EPOCH FROM claimed.claimed_at - c.claimed_at) * 0.1
                 + 0.9 * COALESCE(c.interval_s,
                                  EXTRACT(EPOCH FROM claimed.claimed_at - c.claimed_at))
            END,
        claimed_at = claimed.claimed_at,
        backlog = turn.waiting > 1 OR EXISTS (
            SELECT FROM queues q WHERE q.ready AND q.tenant_id <> turn.tenant_id);
    INSERT INTO events (tenant_id, execution_id, seq, attempt, kind, data)
    VALUES (claimed.tenant_id, claimed.execution_id, claimed.event_seq, claimed.attempt, 'state',
            jsonb_build_object('state', 'starting'));
    RETURN QUERY SELECT claimed.tenant_id, claimed.execution_id, claimed.attempt;
END
$$;

ALTER FUNCTION reset_password(bytea, text) OWNER TO runner_definer;
REVOKE ALL ON FUNCTION reset_password(bytea, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reset_password(bytea, text) TO runner_api;
REVOKE CREATE ON SCHEMA public FROM runner_definer, runner_eraser;

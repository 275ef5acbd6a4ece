-- Roles. Each process logs in with the least it needs; none is a superuser, bypasses row-level
-- security or owns a table.
--   runner_api      the API: one tenant at a time, cannot schedule
--   runner_worker   the worker: one tenant at a time, may claim and reap
--   runner_definer  no login; owns the few functions that look across tenants
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['runner_api', 'runner_worker', 'runner_definer'] LOOP
        IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE %s',
                           wanted, CASE wanted WHEN 'runner_definer' THEN 'NOLOGIN' ELSE 'LOGIN' END);
        END IF;
    END LOOP;
END
$$;
GRANT runner_definer TO CURRENT_USER;
GRANT USAGE ON SCHEMA public TO runner_api, runner_worker, runner_definer;
-- PostgreSQL asks this of the role that is to own a function; taken back at the end.
GRANT CREATE ON SCHEMA public TO runner_definer;

-- The tenant of this transaction. NULL when unset, so that every policy below matches nothing.
CREATE FUNCTION app_tenant() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN NULLIF(current_setting('app.tenant_id', true), '')::uuid;

CREATE TABLE tenants (
    tenant_id       uuid PRIMARY KEY,
    name            text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    max_concurrency integer NOT NULL DEFAULT 8 CHECK (max_concurrency > 0),
    max_limits      jsonb NOT NULL,
    turn            bigint NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN tenants.turn IS 'Who was served longest ago goes next: see claim_execution.';
CREATE SEQUENCE turns;

CREATE TABLE api_keys (
    key_id     uuid PRIMARY KEY,
    tenant_id  uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    prefix     text NOT NULL UNIQUE,
    hash       bytea NOT NULL CHECK (length(hash) = 32),
    role       text NOT NULL CHECK (role IN ('owner', 'admin', 'developer', 'viewer')),
    name       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
CREATE INDEX api_keys_tenant ON api_keys (tenant_id);

-- States and their allowed changes: runner/states.py.
CREATE TABLE executions (
    tenant_id           uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    execution_id        uuid NOT NULL,
    state               text NOT NULL DEFAULT 'queued' CHECK (state IN (
                            'queued', 'starting', 'running', 'succeeded', 'failed', 'timed_out',
                            'cancelled', 'out_of_memory', 'output_limit_exceeded', 'system_error')),
    attempt             integer NOT NULL DEFAULT 0,
    created_at          timestamptz NOT NULL DEFAULT now(),
    queued_at           timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,
    ended_at            timestamptz,
    cancel_requested_at timestamptz,
    lease_until         timestamptz,
    node                text,
    instance            text,
    event_seq           bigint NOT NULL DEFAULT 0,
    language            text,
    image               text NOT NULL,
    size                text NOT NULL,
    limits              jsonb NOT NULL,
    egress              text[] NOT NULL,
    metadata            jsonb NOT NULL,
    on_worker_loss      text NOT NULL CHECK (on_worker_loss IN ('fail', 'retry')),
    argv                text[] NOT NULL,
    env                 jsonb NOT NULL,
    stdin               bytea NOT NULL,
    result              jsonb,
    PRIMARY KEY (tenant_id, execution_id),
    CHECK ((state IN ('starting', 'running')) = (lease_until IS NOT NULL)),
    CHECK ((ended_at IS NULL) = (state IN ('queued', 'starting', 'running'))),
    CHECK ((ended_at IS NULL) = (result IS NULL))
);
CREATE INDEX executions_waiting ON executions (tenant_id, queued_at, execution_id)
    WHERE state = 'queued';
CREATE INDEX executions_active ON executions (tenant_id) WHERE state IN ('starting', 'running');
CREATE INDEX executions_lease ON executions (lease_until) WHERE state IN ('starting', 'running');
CREATE INDEX executions_by_state ON executions (tenant_id, state, execution_id);

CREATE TABLE input_files (
    tenant_id    uuid NOT NULL,
    execution_id uuid NOT NULL,
    path         text NOT NULL,
    content      bytea NOT NULL,
    PRIMARY KEY (tenant_id, execution_id, path),
    FOREIGN KEY (tenant_id, execution_id) REFERENCES executions ON DELETE CASCADE
);

CREATE TABLE events (
    tenant_id    uuid NOT NULL,
    execution_id uuid NOT NULL,
    seq          bigint NOT NULL,
    attempt      integer NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('state', 'stdout', 'stderr')),
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    data         jsonb NOT NULL DEFAULT '{}',
    chunk        bytea NOT NULL DEFAULT '',
    PRIMARY KEY (tenant_id, execution_id, seq),
    FOREIGN KEY (tenant_id, execution_id) REFERENCES executions ON DELETE CASCADE
);

CREATE TABLE artifacts (
    tenant_id    uuid NOT NULL,
    execution_id uuid NOT NULL,
    path         text NOT NULL,
    size         bigint NOT NULL,
    sha256       text NOT NULL,
    media_type   text NOT NULL,
    object_key   text NOT NULL,
    PRIMARY KEY (tenant_id, execution_id, path),
    FOREIGN KEY (tenant_id, execution_id) REFERENCES executions ON DELETE CASCADE
);

CREATE TABLE idempotency_keys (
    tenant_id    uuid NOT NULL,
    key          text NOT NULL,
    request_hash bytea NOT NULL,
    execution_id uuid NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, key),
    FOREIGN KEY (tenant_id, execution_id) REFERENCES executions ON DELETE CASCADE
        DEFERRABLE INITIALLY DEFERRED
);

-- The audit log. `body` is the record, canonical JSON (RFC 8785); every other column is made
-- from it or from the chain, so that none can disagree with what was hashed.
-- No foreign key: the log outlives what it tells of.
CREATE TABLE audit_events (
    tenant_id     uuid NOT NULL,
    seq           bigint NOT NULL,
    body          text NOT NULL,
    previous_hash bytea NOT NULL,
    hash          bytea NOT NULL,
    event_id      text NOT NULL GENERATED ALWAYS AS (body::jsonb ->> 'id') STORED,
    at            text COLLATE "C" NOT NULL GENERATED ALWAYS AS (body::jsonb ->> 'at') STORED,
    actor         text NOT NULL GENERATED ALWAYS AS (body::jsonb ->> 'actor') STORED,
    action        text NOT NULL GENERATED ALWAYS AS (body::jsonb ->> 'action') STORED,
    outcome       text NOT NULL GENERATED ALWAYS AS (body::jsonb ->> 'outcome') STORED,
    resource_type text GENERATED ALWAYS AS (body::jsonb ->> 'resource_type') STORED,
    resource_id   text GENERATED ALWAYS AS (body::jsonb ->> 'resource_id') STORED,
    PRIMARY KEY (tenant_id, seq)
);
CREATE INDEX audit_events_resource ON audit_events (tenant_id, resource_id, seq);

CREATE TABLE audit_heads (
    tenant_id uuid PRIMARY KEY,
    seq       bigint NOT NULL,
    hash      bytea NOT NULL
);

-- Locks the tenant's head until commit: concurrent writers queue up and cannot fork the chain.
CREATE FUNCTION audit_chain() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    head audit_heads;
BEGIN
    IF (NEW.body::jsonb ->> 'tenant') IS DISTINCT FROM NEW.tenant_id::text THEN
        RAISE EXCEPTION 'audit body names another tenant' USING ERRCODE = 'check_violation';
    END IF;
    INSERT INTO audit_heads VALUES (NEW.tenant_id, 0, decode(repeat('00', 32), 'hex'))
        ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT head FROM audit_heads WHERE tenant_id = NEW.tenant_id FOR UPDATE;
    NEW.seq := head.seq + 1;
    NEW.previous_hash := head.hash;
    NEW.hash := sha256(head.hash || int8send(NEW.seq) || convert_to(NEW.body, 'UTF8'));
    UPDATE audit_heads SET seq = NEW.seq, hash = NEW.hash WHERE tenant_id = NEW.tenant_id;
    RETURN NEW;
END
$$;
CREATE TRIGGER audit_chain BEFORE INSERT ON audit_events
    FOR EACH ROW EXECUTE FUNCTION audit_chain();

CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_events is append-only: % refused', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();

-- Row-level security, forced: it binds the owner, too.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['tenants', 'api_keys', 'executions', 'input_files', 'events',
                                'artifacts', 'idempotency_keys', 'audit_events', 'audit_heads'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY tenant ON %I USING (tenant_id = app_tenant()) '
                       'WITH CHECK (tenant_id = app_tenant())', name);
    END LOOP;
    -- What the functions below need to see across tenants, and no more.
    FOREACH name IN ARRAY ARRAY['tenants', 'api_keys', 'executions', 'events', 'audit_heads'] LOOP
        EXECUTE format('CREATE POLICY across_tenants ON %I TO runner_definer '
                       'USING (true) WITH CHECK (true)', name);
    END LOOP;
END
$$;

GRANT SELECT ON tenants, api_keys, artifacts, audit_heads TO runner_api;
GRANT SELECT, INSERT ON executions, input_files, events, idempotency_keys, audit_events
    TO runner_api;
GRANT UPDATE (state, ended_at, result, event_seq, cancel_requested_at) ON executions TO runner_api;

GRANT SELECT ON tenants, input_files TO runner_worker;
GRANT SELECT, INSERT ON events, artifacts, audit_events TO runner_worker;
GRANT SELECT ON executions TO runner_worker;
GRANT UPDATE (state, queued_at, started_at, ended_at, result, event_seq, lease_until, node, instance)
    ON executions TO runner_worker;

GRANT SELECT ON api_keys TO runner_definer;
GRANT SELECT, UPDATE (turn) ON tenants TO runner_definer;
GRANT SELECT, UPDATE ON executions TO runner_definer;
GRANT INSERT ON events TO runner_definer;
GRANT SELECT, INSERT, UPDATE ON audit_heads TO runner_definer;
GRANT USAGE ON SEQUENCE turns TO runner_definer;

-- Across tenants: the whole list. Each function answers one question and takes no SQL.

-- The key behind a prefix, before its tenant is known. The caller compares the hash.
CREATE FUNCTION find_api_key(p_prefix text)
    RETURNS TABLE (tenant_id uuid, key_id uuid, role text, hash bytea)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT k.tenant_id, k.key_id, k.role, k.hash FROM api_keys k
    WHERE k.prefix = p_prefix AND k.revoked_at IS NULL
      AND (k.expires_at IS NULL OR k.expires_at > now());
END;

CREATE FUNCTION find_tenant(p_name text) RETURNS uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT t.tenant_id FROM tenants t WHERE t.name = p_name;
END;

-- Tenants that have queued executions: one index probe for each, however long their queues are.
CREATE FUNCTION waiting_tenants() RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH RECURSIVE waiting AS (
        (SELECT e.tenant_id FROM executions e WHERE e.state = 'queued'
         ORDER BY e.tenant_id LIMIT 1)
        UNION ALL
        SELECT (SELECT e.tenant_id FROM executions e
                WHERE e.state = 'queued' AND e.tenant_id > w.tenant_id
                ORDER BY e.tenant_id LIMIT 1)
        FROM waiting w WHERE w.tenant_id IS NOT NULL
    )
    SELECT w.tenant_id FROM waiting w WHERE w.tenant_id IS NOT NULL;
END;

-- The tenant whose turn it is: it waits, is below its cap, and was served longest ago.
CREATE FUNCTION next_tenant() RETURNS uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT t.tenant_id FROM waiting_tenants() AS w (tenant_id) JOIN tenants t USING (tenant_id)
    WHERE t.max_concurrency > (SELECT count(*) FROM executions e
                               WHERE e.tenant_id = t.tenant_id
                                 AND e.state IN ('starting', 'running'))
    ORDER BY t.turn, t.tenant_id LIMIT 1;
END;

-- Claims run one after another, so that turns and caps are exact; a claim takes about a
-- millisecond, an execution at least several.
CREATE FUNCTION claim_execution(p_node text, p_instance text, p_lease interval)
    RETURNS TABLE (tenant_id uuid, execution_id uuid, attempt integer)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen uuid;
    claimed executions;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('runner.claim', 0));
    LOOP
        chosen := next_tenant();
        IF chosen IS NULL THEN
            RETURN;
        END IF;
        UPDATE executions e
        SET state = 'starting', attempt = e.attempt + 1, node = p_node, instance = p_instance,
            lease_until = clock_timestamp() + p_lease, event_seq = e.event_seq + 1
        WHERE e.tenant_id = chosen AND e.state = 'queued' AND e.execution_id = (
            SELECT q.execution_id FROM executions q
            WHERE q.tenant_id = chosen AND q.state = 'queued'
            ORDER BY q.queued_at, q.execution_id LIMIT 1 FOR UPDATE)
        RETURNING e.* INTO claimed;
        -- Nothing to claim when a cancellation came first: look again.
        EXIT WHEN FOUND;
    END LOOP;
    UPDATE tenants t SET turn = nextval('turns') WHERE t.tenant_id = chosen;
    INSERT INTO events (tenant_id, execution_id, seq, attempt, kind, data)
    VALUES (chosen, claimed.execution_id, claimed.event_seq, claimed.attempt, 'state',
            jsonb_build_object('state', 'starting'));
    RETURN QUERY SELECT claimed.tenant_id, claimed.execution_id, claimed.attempt;
END
$$;

-- How many executions run before this one if tenants take turns: those ahead of it in its own
-- tenant's queue, and of each other tenant at most as many.
CREATE FUNCTION queue_position(p_execution uuid) RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH mine AS (
        SELECT e.tenant_id, e.queued_at, e.execution_id FROM executions e
        WHERE e.tenant_id = app_tenant() AND e.execution_id = p_execution AND e.state = 'queued'
    ), ahead AS (
        SELECT count(*) AS own FROM executions e, mine m
        WHERE e.state = 'queued' AND e.tenant_id = m.tenant_id
          AND (e.queued_at, e.execution_id) < (m.queued_at, m.execution_id)
    ), others AS (
        SELECT LEAST(count(*), (SELECT own FROM ahead)) AS share FROM executions e
        WHERE e.state = 'queued' AND e.tenant_id <> app_tenant() GROUP BY e.tenant_id
    )
    SELECT a.own + COALESCE((SELECT sum(o.share) FROM others o), 0)::bigint
    FROM ahead a WHERE EXISTS (SELECT 1 FROM mine);
END;

-- Attempts whose worker stopped renewing its lease, by the database's clock.
CREATE FUNCTION expired_leases(p_limit integer)
    RETURNS TABLE (tenant_id uuid, execution_id uuid, attempt integer)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT e.tenant_id, e.execution_id, e.attempt FROM executions e
    WHERE e.state IN ('starting', 'running') AND e.lease_until < clock_timestamp()
    ORDER BY e.lease_until LIMIT p_limit;
END;

-- A worker that starts knows that its node's earlier instances are dead: their leases end now.
CREATE FUNCTION end_leases_of_node(p_node text, p_instance text) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH ended AS (
        UPDATE executions e SET lease_until = '-infinity'
        WHERE e.state IN ('starting', 'running') AND e.node = p_node AND e.instance <> p_instance
        RETURNING 1
    )
    SELECT count(*) FROM ended;
END;

-- Gauges for /metrics: counts only.
CREATE FUNCTION state_counts() RETURNS TABLE (state text, executions bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT e.state, count(*) FROM executions e
    WHERE e.state IN ('queued', 'starting', 'running') GROUP BY e.state;
END;

DO $$
DECLARE
    signature regprocedure;
BEGIN
    FOR signature IN
        SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = 'public' AND p.prosecdef
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO runner_definer', signature);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    END LOOP;
END
$$;
GRANT EXECUTE ON FUNCTION find_tenant(text) TO CURRENT_USER;
GRANT EXECUTE ON FUNCTION find_api_key(text), queue_position(uuid), state_counts() TO runner_api;
GRANT EXECUTE ON FUNCTION claim_execution(text, text, interval), next_tenant(),
    expired_leases(integer), end_leases_of_node(text, text) TO runner_worker;
REVOKE CREATE ON SCHEMA public FROM runner_definer;

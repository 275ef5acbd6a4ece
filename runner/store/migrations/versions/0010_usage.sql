-- What a tier may have. Of the deployment: its owner publishes profiles/tiers.toml here, so that
-- every process goes by the same numbers.
CREATE TABLE tiers (
    tier                 text PRIMARY KEY CHECK (tier IN ('free', 'pro', 'enterprise')),
    concurrent           integer NOT NULL CHECK (concurrent > 0),
    queued               integer NOT NULL CHECK (queued > 0),
    cpu_s_per_day        bigint NOT NULL CHECK (cpu_s_per_day > 0),
    egress_bytes_per_day bigint NOT NULL CHECK (egress_bytes_per_day >= 0),
    storage_bytes        bigint NOT NULL CHECK (storage_bytes >= 0),
    stored_objects       bigint NOT NULL CHECK (stored_objects >= 0),
    max_size             text NOT NULL,
    weight               integer NOT NULL CHECK (weight BETWEEN 1 AND 1000)
);
GRANT SELECT ON tiers TO runner_api, runner_worker, runner_definer;
REVOKE DELETE ON tiers FROM runner_operator;

ALTER TABLE tenants
    ALTER COLUMN max_concurrency DROP NOT NULL,
    ALTER COLUMN max_concurrency DROP DEFAULT,
    ADD COLUMN quotas jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(quotas) = 'object');
COMMENT ON COLUMN tenants.max_concurrency IS 'NULL: what the tier says.';
COMMENT ON COLUMN tenants.quotas IS 'In place of the tier''s, by the names of its columns.';
GRANT UPDATE (quotas) ON tenants TO runner_operator;

CREATE VIEW tenant_quotas WITH (security_invoker = true) AS
SELECT t.tenant_id, t.tier, t.suspended_at IS NOT NULL AS suspended,
       COALESCE(t.max_concurrency, r.concurrent) AS concurrent,
       COALESCE((t.quotas ->> 'queued')::integer, r.queued) AS queued,
       COALESCE((t.quotas ->> 'cpu_s_per_day')::bigint, r.cpu_s_per_day) AS cpu_s_per_day,
       COALESCE((t.quotas ->> 'egress_bytes_per_day')::bigint, r.egress_bytes_per_day)
           AS egress_bytes_per_day,
       COALESCE((t.quotas ->> 'storage_bytes')::bigint, r.storage_bytes) AS storage_bytes,
       COALESCE((t.quotas ->> 'stored_objects')::bigint, r.stored_objects) AS stored_objects,
       COALESCE(t.quotas ->> 'max_size', r.max_size) AS max_size,
       COALESCE((t.quotas ->> 'weight')::integer, r.weight) AS weight
FROM tenants t JOIN tiers r USING (tier);
GRANT SELECT ON tenant_quotas TO runner_api, runner_worker, runner_definer;

-- The ledger: a row for each attempt that has ended. Deleted with its tenant, changed never.
CREATE TABLE usage_records (
    tenant_id         uuid NOT NULL REFERENCES tenants,
    execution_id      uuid NOT NULL,
    attempt           integer NOT NULL,
    outcome           text NOT NULL,
    started_at        timestamptz,
    ended_at          timestamptz NOT NULL,
    image             text NOT NULL,
    size              text NOT NULL,
    isolation         text NOT NULL,
    wall_s            numeric(20, 6) NOT NULL CHECK (wall_s >= 0),
    cpu_s             numeric(20, 6) NOT NULL CHECK (cpu_s >= 0),
    cpu_measured      boolean NOT NULL,
    memory_gib_s      numeric(20, 6) NOT NULL CHECK (memory_gib_s >= 0),
    egress_bytes_up   bigint NOT NULL CHECK (egress_bytes_up >= 0),
    egress_bytes_down bigint NOT NULL CHECK (egress_bytes_down >= 0),
    artifact_bytes    bigint NOT NULL CHECK (artifact_bytes >= 0),
    PRIMARY KEY (tenant_id, execution_id, attempt)
);
COMMENT ON COLUMN usage_records.outcome IS 'The state it ended in, or requeued.';
COMMENT ON COLUMN usage_records.cpu_measured IS 'If not: wall-clock time times the limit, the most.';
CREATE TRIGGER usage_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage_records
    FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();

-- The ledger's sums by day (UTC) of the end: what a quota is compared with is one row.
CREATE TABLE usage_days (
    tenant_id         uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    day               date NOT NULL,
    attempts          bigint NOT NULL,
    wall_s            numeric(20, 6) NOT NULL,
    cpu_s             numeric(20, 6) NOT NULL,
    memory_gib_s      numeric(20, 6) NOT NULL,
    egress_bytes_up   bigint NOT NULL,
    egress_bytes_down bigint NOT NULL,
    artifact_bytes    bigint NOT NULL,
    PRIMARY KEY (tenant_id, day)
);

-- A tenant's place among the others.
CREATE TABLE queues (
    tenant_id uuid PRIMARY KEY REFERENCES tenants ON DELETE CASCADE,
    waiting   integer NOT NULL DEFAULT 0 CHECK (waiting >= 0),
    active    integer NOT NULL DEFAULT 0 CHECK (active >= 0),
    load      double precision NOT NULL DEFAULT 0,
    served    double precision NOT NULL DEFAULT 0,
    -- Its value, not the count, is what the index below depends on: most submissions leave it be.
    ready     boolean NOT NULL GENERATED ALWAYS AS (waiting > 0) STORED
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);
COMMENT ON COLUMN queues.load IS 'Active executions by weight.';
COMMENT ON COLUMN queues.served IS 'Seconds that its executions held a slot, by weight: virtual time.';
CREATE INDEX queues_turn ON queues (load, served, tenant_id) WHERE ready;

-- One row: how far virtual time has come, and how fast executions are claimed while others wait.
CREATE TABLE queue_clock (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    served     double precision NOT NULL DEFAULT 0,
    claimed_at timestamptz,
    backlog    boolean NOT NULL DEFAULT false,
    interval_s double precision
) WITH (fillfactor = 50);
INSERT INTO queue_clock DEFAULT VALUES;
REVOKE DELETE ON queue_clock FROM runner_operator;

ALTER TABLE executions ADD COLUMN claimed_at timestamptz;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['usage_records', 'usage_days', 'queues'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY tenant ON %I USING (tenant_id = app_tenant()) '
                       'WITH CHECK (tenant_id = app_tenant())', name);
    END LOOP;
    -- What the functions below keep, of whichever tenant.
    FOREACH name IN ARRAY ARRAY['usage_days', 'queues'] LOOP
        EXECUTE format('CREATE POLICY across_tenants ON %I TO runner_definer '
                       'USING (true) WITH CHECK (true)', name);
    END LOOP;
END
$$;
GRANT SELECT ON usage_records, usage_days, queues TO runner_api;
GRANT INSERT ON usage_records TO runner_worker;
GRANT SELECT ON usage_days, queues TO runner_worker;
GRANT SELECT, INSERT, UPDATE ON usage_days, queues TO runner_definer;
GRANT SELECT, UPDATE ON queue_clock TO runner_definer;
GRANT CREATE ON SCHEMA public TO runner_definer;

-- The sums are kept when a transaction commits (deferred triggers): their rows, which all of a
-- tenant's transactions share, are then locked last, in one order, and never while a client thinks.

CREATE FUNCTION usage_adds_up() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO usage_days AS d
    VALUES (NEW.tenant_id, (NEW.ended_at AT TIME ZONE 'UTC')::date, 1, NEW.wall_s, NEW.cpu_s,
            NEW.memory_gib_s, NEW.egress_bytes_up, NEW.egress_bytes_down, NEW.artifact_bytes)
    ON CONFLICT (tenant_id, day) DO UPDATE
    SET attempts = d.attempts + 1,
        wall_s = d.wall_s + EXCLUDED.wall_s,
        cpu_s = d.cpu_s + EXCLUDED.cpu_s,
        memory_gib_s = d.memory_gib_s + EXCLUDED.memory_gib_s,
        egress_bytes_up = d.egress_bytes_up + EXCLUDED.egress_bytes_up,
        egress_bytes_down = d.egress_bytes_down + EXCLUDED.egress_bytes_down,
        artifact_bytes = d.artifact_bytes + EXCLUDED.artifact_bytes;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER usage_adds_up AFTER INSERT ON usage_records
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION usage_adds_up();

-- Counts what waits and what is active, and charges the time for which a slot was held: by weight,
-- and a tenth of a second for each turn, as a container is made and removed however short it runs.
-- A queue that was empty begins where the clock is: nobody saves up turns by asking for none.
CREATE FUNCTION queue_moves() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    tenant uuid := CASE WHEN TG_OP = 'DELETE' THEN OLD.tenant_id ELSE NEW.tenant_id END;
    before text := CASE WHEN TG_OP = 'INSERT' THEN '' ELSE OLD.state END;
    after text := CASE WHEN TG_OP = 'DELETE' THEN '' ELSE NEW.state END;
    waits integer := (after = 'queued')::integer - (before = 'queued')::integer;
    is_active boolean := after IN ('starting', 'running');
    was_active boolean := before IN ('starting', 'running');
    charge double precision := 0;
    share double precision;
BEGIN
    IF is_active AND NOT was_active THEN
        charge := 0.1;
    ELSIF was_active AND NOT is_active THEN
        charge := COALESCE(GREATEST(EXTRACT(EPOCH FROM clock_timestamp() - OLD.claimed_at), 0), 0);
    END IF;
    SELECT COALESCE((SELECT t.weight FROM tenant_quotas t WHERE t.tenant_id = tenant), 1)
        INTO share;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO queues (tenant_id) VALUES (tenant) ON CONFLICT DO NOTHING;
    END IF;
    UPDATE queues q
    SET waiting = q.waiting + waits,
        active = q.active + is_active::integer - was_active::integer,
        load = (q.active + is_active::integer - was_active::integer) / share,
        served = CASE WHEN q.waiting = 0 AND waits > 0 THEN GREATEST(q.served, c.served)
                 ELSE q.served END + charge / share
    FROM queue_clock c WHERE q.tenant_id = tenant;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER queue_enters AFTER INSERT ON executions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION queue_moves();
CREATE CONSTRAINT TRIGGER queue_moves AFTER UPDATE ON executions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state)
    EXECUTE FUNCTION queue_moves();
CREATE CONSTRAINT TRIGGER queue_leaves AFTER DELETE ON executions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (OLD.state IN ('queued', 'starting', 'running')) EXECUTE FUNCTION queue_moves();

-- What is there already.
ALTER TABLE executions NO FORCE ROW LEVEL SECURITY;
ALTER TABLE queues NO FORCE ROW LEVEL SECURITY;
INSERT INTO queues (tenant_id, waiting, active, load)
SELECT tenant_id, count(*) FILTER (WHERE state = 'queued'),
       count(*) FILTER (WHERE state <> 'queued'), count(*) FILTER (WHERE state <> 'queued')
FROM executions WHERE state IN ('queued', 'starting', 'running') GROUP BY tenant_id;
ALTER TABLE executions FORCE ROW LEVEL SECURITY;
ALTER TABLE queues FORCE ROW LEVEL SECURITY;

-- The tenant whose turn it is: of those that wait and may have one more, the one with the fewest
-- active by its weight; among equals, the one that was served least.
CREATE OR REPLACE FUNCTION next_tenant() RETURNS uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT q.tenant_id FROM queues q JOIN tenant_quotas t USING (tenant_id)
    WHERE q.ready AND NOT t.suspended AND q.active < t.concurrent
    ORDER BY q.load, q.served, q.tenant_id LIMIT 1;
END;

-- Claims run one after another, so that turns and caps are exact. None waits for a tenant whose
-- count is being written while another tenant can be served: hence SKIP LOCKED, at first.
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
    PERFORM pg_advisory_xact_lock(hashtextextended('runner.claim', 0));
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

-- How many executions are claimed before this one if all goes on as now: those ahead of it in its
-- own tenant's queue, of each other tenant as many by weight, and one of each that is before it.
CREATE OR REPLACE FUNCTION queue_position(p_execution uuid) RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH mine AS (
        SELECT e.queued_at, e.execution_id FROM executions e
        WHERE e.tenant_id = app_tenant() AND e.execution_id = p_execution AND e.state = 'queued'
    ), ahead AS (
        SELECT count(*) AS own FROM executions e, mine m
        WHERE e.state = 'queued' AND e.tenant_id = app_tenant()
          AND (e.queued_at, e.execution_id) < (m.queued_at, m.execution_id)
    ), standing AS (
        SELECT q.load, q.served, q.tenant_id, t.weight
        FROM queues q JOIN tenant_quotas t USING (tenant_id) WHERE q.tenant_id = app_tenant()
    ), others AS (
        SELECT LEAST(q.waiting, a.own * t.weight / s.weight
                     + ((q.load, q.served, q.tenant_id)
                        < (s.load, s.served, s.tenant_id))::integer) AS share
        FROM ahead a, standing s, queues q JOIN tenant_quotas t USING (tenant_id)
        WHERE q.ready AND NOT t.suspended AND q.tenant_id <> app_tenant()
    )
    SELECT a.own + COALESCE((SELECT sum(o.share) FROM others o), 0)::bigint
    FROM ahead a WHERE EXISTS (SELECT FROM mine);
END;

-- Seconds from one claim to the next, lately, while something waited. NULL until that is known.
CREATE FUNCTION claim_interval() RETURNS double precision
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT CASE WHEN c.backlog
           THEN GREATEST(c.interval_s, EXTRACT(EPOCH FROM clock_timestamp() - c.claimed_at))
           ELSE c.interval_s END
    FROM queue_clock c WHERE c.interval_s IS NOT NULL;
END;

-- A weight that changed counts from now on.
CREATE FUNCTION weigh_queues() RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    UPDATE queues q SET load = q.active::double precision / t.weight
    FROM tenant_quotas t
    WHERE t.tenant_id = q.tenant_id AND q.load <> q.active::double precision / t.weight;
END;

DROP FUNCTION waiting_tenants();
ALTER TABLE tenants DROP COLUMN turn;
DROP SEQUENCE turns;

DO $$
DECLARE
    signature regprocedure;
BEGIN
    FOREACH signature IN ARRAY ARRAY['usage_adds_up()', 'queue_moves()',
                                     'claim_interval()', 'weigh_queues()']::regprocedure[] LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO runner_definer', signature);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    END LOOP;
END
$$;
GRANT EXECUTE ON FUNCTION claim_interval() TO runner_api;
GRANT EXECUTE ON FUNCTION weigh_queues() TO CURRENT_USER;
REVOKE CREATE ON SCHEMA public FROM runner_definer;

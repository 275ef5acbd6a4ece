-- Nodes have rows: what each can hold, where its door is, and whether it takes anything.

CREATE TABLE nodes (
    node       text PRIMARY KEY CHECK (node ~ '^[A-Za-z0-9._-]{1,80}$'),
    instance   text NOT NULL,
    state      text NOT NULL DEFAULT 'ready' CHECK (state IN ('ready', 'draining', 'removed')),
    version    text NOT NULL,
    door       text NOT NULL,
    zone       text,
    isolations text[] NOT NULL,
    images     text[] NOT NULL,
    templates  uuid[] NOT NULL DEFAULT '{}',
    slots      integer NOT NULL CHECK (slots >= 0),
    sandboxes  integer NOT NULL CHECK (sandboxes >= 0),
    cpus       integer NOT NULL CHECK (cpus > 0),
    memory_mb  bigint NOT NULL CHECK (memory_mb > 0),
    running    integer NOT NULL DEFAULT 0,
    living     integer NOT NULL DEFAULT 0,
    free_mb    bigint NOT NULL DEFAULT 0,
    fault      text,
    joined_at  timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    away_at    timestamptz NOT NULL
);
COMMENT ON COLUMN nodes.instance IS 'The process that is the node now; an earlier one takes nothing.';
COMMENT ON COLUMN nodes.state IS 'What the operator wants; one that is away has any of them.';
COMMENT ON COLUMN nodes.door IS 'Where the API reaches its living sandboxes.';
COMMENT ON COLUMN nodes.images IS 'The deployment''s images that it may be asked for.';
COMMENT ON COLUMN nodes.templates IS 'Tenants'' templates that it has made an image of.';
COMMENT ON COLUMN nodes.fault IS 'Why it cannot start sandboxes now.';
COMMENT ON COLUMN nodes.away_at IS 'From then on it counts as away, unless it is seen again.';

-- No tenant's.
REVOKE DELETE ON nodes FROM runner_eraser;
GRANT SELECT ON nodes TO runner_api, runner_operator, runner_worker, runner_definer;
GRANT UPDATE (state) ON nodes TO runner_operator;
GRANT INSERT (node, instance, version, door, zone, isolations, images, slots, sandboxes, cpus,
              memory_mb, free_mb, away_at),
      UPDATE (instance, version, door, zone, isolations, images, templates, slots, sandboxes, cpus,
              memory_mb, running, living, free_mb, fault, started_at, seen_at, away_at)
    ON nodes TO runner_worker;
GRANT SELECT (created_at, on_shortage) ON sandboxes TO runner_definer;

-- What keeps a node from being empty: it ends by itself, or its owner ends it.
CREATE FUNCTION held_by_node(p_node text, p_limit integer)
    RETURNS TABLE (kind text, tenant_id uuid, id uuid, state text, on_shortage text,
                   since timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT h.* FROM (
        SELECT 'execution', e.tenant_id, e.execution_id, e.state, NULL::text, e.claimed_at
        FROM executions e WHERE e.node = p_node AND e.state IN ('starting', 'running')
        UNION ALL
        SELECT 'sandbox', s.tenant_id, s.sandbox_id, s.state, s.on_shortage, s.created_at
        FROM sandboxes s WHERE s.node = p_node AND s.state <> 'ended'
    ) h (kind, tenant_id, id, state, on_shortage, since)
    ORDER BY h.since LIMIT p_limit;
END;

-- PostgreSQL asks for CREATE of the role that is to own a function; taken back below.
GRANT CREATE ON SCHEMA public TO runner_definer;
ALTER FUNCTION held_by_node(text, integer) OWNER TO runner_definer;
REVOKE CREATE ON SCHEMA public FROM runner_definer;
REVOKE ALL ON FUNCTION held_by_node(text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION held_by_node(text, integer) TO runner_operator;

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
    taker nodes;
BEGIN
    LOCK TABLE claim_turn IN EXCLUSIVE MODE;
    -- A node of a release before this has no row, and may claim anything.
    SELECT n.* INTO taker FROM nodes n WHERE n.node = p_node;
    IF FOUND AND (taker.state <> 'ready' OR taker.instance <> p_instance) THEN
        RETURN;
    END IF;
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
          AND (taker.node IS NULL
               OR (e.isolation = ANY (taker.isolations) AND e.image = ANY (taker.images)))
        ORDER BY e.queued_at, e.execution_id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
        EXIT WHEN FOUND;
        -- What it has waiting is being cancelled, or is for other nodes.
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

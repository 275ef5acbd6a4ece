-- A node leaves executions of a template for a moment to a node that has its image.

CREATE OR REPLACE FUNCTION claim_execution(p_node text, p_instance text, p_lease interval)
    RETURNS TABLE (tenant_id uuid, execution_id uuid, attempt integer)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    tried uuid[] := '{}';
    turn queues;
    chosen uuid;
    leaves boolean;
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
        FOREACH leaves IN ARRAY ARRAY[true, false] LOOP
            SELECT e.execution_id INTO chosen FROM executions e
            WHERE e.tenant_id = turn.tenant_id AND e.state = 'queued'
              AND (taker.node IS NULL
                   OR (e.isolation = ANY (taker.isolations)
                       AND CASE WHEN strpos(e.image, '@') = 0 THEN e.image = ANY (taker.images)
                           -- Of a template, it makes an image on the template's base. One that was
                           -- deleted meanwhile is nobody's: whoever claims it ends it.
                           ELSE NOT EXISTS (SELECT FROM templates t
                                            WHERE t.template_id = right(e.image, 36)::uuid
                                              AND t.base_image <> ALL (taker.images)) END))
              -- For a moment, it leaves one to a node with a slot that has the image already.
              AND NOT (leaves AND taker.node IS NOT NULL AND strpos(e.image, '@') > 0
                       AND right(e.image, 36)::uuid <> ALL (taker.templates)
                       AND e.queued_at > clock_timestamp() - interval '2 seconds'
                       AND EXISTS (SELECT FROM nodes n
                                   WHERE right(e.image, 36)::uuid = ANY (n.templates)
                                     AND n.node <> taker.node AND n.state = 'ready'
                                     AND n.away_at > clock_timestamp() AND n.fault IS NULL
                                     AND e.isolation = ANY (n.isolations)
                                     AND n.slots > (SELECT count(*) FROM executions r
                                                    WHERE r.node = n.node
                                                      AND r.state IN ('starting', 'running'))))
            ORDER BY e.queued_at, e.execution_id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
            EXIT WHEN chosen IS NOT NULL;
        END LOOP;
        EXIT WHEN leaves;
        IF chosen IS NOT NULL THEN
            -- The ring for it woke this node: it rings again, until that one hears it.
            PERFORM set_config('runner.left', format('%s %s', turn.tenant_id, chosen), true);
        END IF;
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

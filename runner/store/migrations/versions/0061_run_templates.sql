-- Executions run in sandboxes of templates.

CREATE INDEX templates_id ON templates (template_id);
GRANT SELECT (base_image) ON templates TO runner_definer;

-- A node claims executions of templates whose base it has an image of.
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
               OR (e.isolation = ANY (taker.isolations)
                   AND CASE WHEN strpos(e.image, '@') = 0 THEN e.image = ANY (taker.images)
                       -- Of a template, it makes an image on the template's base. One that was
                       -- deleted meanwhile is nobody's: whoever claims it ends it.
                       ELSE NOT EXISTS (SELECT FROM templates t
                                        WHERE t.template_id = right(e.image, 36)::uuid
                                          AND t.base_image <> ALL (taker.images)) END))
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

-- A template stays while an execution in it has not ended.
CREATE OR REPLACE FUNCTION remove_expired_templates(p_limit integer) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH chosen AS (
        SELECT t.tenant_id, t.template_id FROM templates t JOIN tenant_quotas q USING (tenant_id)
        WHERE t.tenant_id = app_tenant() AND t.state = 'ready' AND q.template_days > 0
          AND t.untagged_at < now() - make_interval(days => q.template_days)
          AND NOT EXISTS (SELECT FROM public_templates p
                          WHERE p.tenant_id = t.tenant_id AND p.template_id = t.template_id)
          AND NOT EXISTS (SELECT FROM templates u
                          WHERE u.base_owner = t.tenant_id AND u.base_template = t.template_id)
          AND NOT EXISTS (SELECT FROM sandboxes s
                          WHERE s.image = t.name || '@' || t.template_id AND s.state <> 'ended')
          AND NOT EXISTS (SELECT FROM snapshots n WHERE n.image = t.name || '@' || t.template_id)
          AND NOT EXISTS (SELECT FROM executions e
                          WHERE e.tenant_id = t.tenant_id AND e.image = t.name || '@' || t.template_id
                            AND e.state IN ('queued', 'starting', 'running'))
        ORDER BY t.untagged_at LIMIT p_limit
    ), gone AS (
        DELETE FROM templates t USING chosen c
        WHERE t.tenant_id = c.tenant_id AND t.template_id = c.template_id
        RETURNING 1
    )
    SELECT count(*) FROM gone;
END;

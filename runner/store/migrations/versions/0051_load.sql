GRANT CREATE ON SCHEMA public TO runner_definer;

-- Tenants that have work or had some in the last minute, the longest queue first. Numbers alone: it
-- shows an operator nothing that is a tenant's.
CREATE FUNCTION load_by_tenant(p_limit integer)
    RETURNS TABLE (tenant text, tier text, suspended boolean, waiting integer, active integer,
                   concurrent integer, living bigint, ended_last_minute bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT t.name, t.tier, x.suspended, COALESCE(q.waiting, 0), COALESCE(q.active, 0),
           x.concurrent, s.living, e.ended
    FROM tenants t JOIN tenant_quotas x USING (tenant_id)
    LEFT JOIN queues q ON q.tenant_id = t.tenant_id
    CROSS JOIN LATERAL (SELECT count(*) AS living FROM sandboxes s
                        WHERE s.tenant_id = t.tenant_id AND s.state <> 'ended') s
    CROSS JOIN LATERAL (SELECT count(*) AS ended FROM executions e
                        WHERE e.tenant_id = t.tenant_id
                          AND e.ended_at > clock_timestamp() - interval '1 minute') e
    WHERE q.waiting > 0 OR q.active > 0 OR s.living > 0 OR e.ended > 0
    ORDER BY q.waiting DESC NULLS LAST, q.active DESC NULLS LAST, s.living DESC, t.name
    LIMIT p_limit;
END;
ALTER FUNCTION load_by_tenant(integer) OWNER TO runner_definer;

REVOKE CREATE ON SCHEMA public FROM runner_definer;
REVOKE ALL ON FUNCTION load_by_tenant(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION load_by_tenant(integer) TO runner_operator;

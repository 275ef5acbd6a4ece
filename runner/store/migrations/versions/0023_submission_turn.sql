-- Any login can hold an advisory lock, so any login could stop a tenant's submissions. The row of
-- the tenant can be locked by the API alone, through this function.
GRANT CREATE ON SCHEMA public TO runner_definer;
GRANT UPDATE (tenant_id) ON tenants TO runner_definer;

CREATE FUNCTION take_submission_turn() RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM FROM tenants t WHERE t.tenant_id = app_tenant() FOR NO KEY UPDATE;
END
$$;
ALTER FUNCTION take_submission_turn() OWNER TO runner_definer;
REVOKE ALL ON FUNCTION take_submission_turn() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION take_submission_turn() TO runner_api;

REVOKE CREATE ON SCHEMA public FROM runner_definer;

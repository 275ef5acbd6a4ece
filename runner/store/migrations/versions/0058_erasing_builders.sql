-- While another tenant's template is built on one of a tenant's, that tenant cannot be erased.

CREATE FUNCTION others_build_on_ours() RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT count(*) FROM templates WHERE base_owner = app_tenant() AND tenant_id <> app_tenant();
END;

-- PostgreSQL asks for CREATE of the role that is to own a function; taken back below.
GRANT CREATE ON SCHEMA public TO runner_definer;
ALTER FUNCTION others_build_on_ours() OWNER TO runner_definer;
REVOKE CREATE ON SCHEMA public FROM runner_definer;
REVOKE ALL ON FUNCTION others_build_on_ours() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION others_build_on_ours() TO runner_operator;

-- What is stored already had a new interpreter, in a sandbox of its own.
ALTER TABLE executions
    ADD COLUMN interpret boolean NOT NULL DEFAULT false,
    ADD COLUMN reuse boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN executions.interpret IS 'Python that an interpreter which is loaded may run.';
COMMENT ON COLUMN executions.reuse IS 'May be run where the tenant''s executions were before.';

ALTER TABLE tenants ADD COLUMN reuse boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN tenants.reuse IS 'Whether its executions may ask for reuse.';
GRANT UPDATE (reuse) ON tenants TO runner_operator;

-- How much waits in the whole deployment, of how many tenants: numbers, and no tenant's rows.
GRANT CREATE ON SCHEMA public TO runner_definer;
CREATE FUNCTION waiting_everywhere(OUT executions bigint, OUT tenants bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT COALESCE(sum(q.waiting), 0), count(*) FROM queues q WHERE q.ready;
END;
ALTER FUNCTION waiting_everywhere() OWNER TO runner_definer;
REVOKE ALL ON FUNCTION waiting_everywhere() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION waiting_everywhere() TO runner_api;
REVOKE CREATE ON SCHEMA public FROM runner_definer;

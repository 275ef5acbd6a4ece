-- 0004, 0007 and 0011 were edited after they had landed. A database that had applied the earlier
-- text lacks what the edit added. Everything here leaves a database alone that has it.

-- Added to 0004.
CREATE TABLE IF NOT EXISTS signing_keys (
    key_id       text PRIMARY KEY CHECK (key_id ~ '^[0-9a-f]{16}$'),
    public_key   text NOT NULL,
    published_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT ON signing_keys TO runner_api;
GRANT SELECT, INSERT ON signing_keys TO runner_worker;
GRANT SELECT (tenant_id, seq, hash) ON audit_events TO runner_worker;

GRANT CREATE ON SCHEMA public TO runner_definer;

-- Added to 0007.
CREATE OR REPLACE FUNCTION hold_password(p_user uuid, p_password text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM 1 FROM users u WHERE u.user_id = p_user AND u.password = p_password FOR SHARE;
    RETURN FOUND;
END
$$;

-- Added to 0011.
CREATE OR REPLACE FUNCTION waiting_everywhere(OUT executions bigint, OUT tenants bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT COALESCE(sum(q.waiting), 0), count(*) FROM queues q WHERE q.ready;
END;

DO $$
DECLARE
    signature regprocedure;
BEGIN
    FOREACH signature IN ARRAY ARRAY['hold_password(uuid, text)',
                                     'waiting_everywhere()']::regprocedure[] LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO runner_definer', signature);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO runner_api', signature);
    END LOOP;
END
$$;
REVOKE CREATE ON SCHEMA public FROM runner_definer;

-- NULL: what the deployment has set.
ALTER TABLE tenants ADD COLUMN retention_days integer CHECK (retention_days > 0);
GRANT UPDATE (retention_days) ON tenants TO runner_operator;

-- The ledger of every object in the store. A row is there before the object is, and goes after
-- it: what no row names does not exist, so that nothing is lost to a crash and no bucket is ever
-- searched for strays.
--   writing  its bytes are reserved; abandoned if that lasts
--   kept     a file, an artifact or an input refers to it
--   doomed   nothing does any more; the worker removes it, then this row
CREATE TABLE objects (
    tenant_id  uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    object_key text NOT NULL CHECK (starts_with(object_key, 'tenants/' || tenant_id || '/')),
    bytes      bigint NOT NULL CHECK (bytes >= 0),
    state      text NOT NULL DEFAULT 'writing' CHECK (state IN ('writing', 'kept', 'doomed')),
    since      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, object_key)
);
CREATE INDEX objects_to_remove ON objects (tenant_id, since) WHERE state <> 'kept';

-- What a tenant stores now: the sum of its objects that are not doomed, kept by a trigger.
CREATE TABLE storage_usage (
    tenant_id uuid PRIMARY KEY REFERENCES tenants ON DELETE CASCADE,
    bytes     bigint NOT NULL,
    objects   bigint NOT NULL
);

CREATE TABLE files (
    tenant_id  uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    path       text COLLATE "C" NOT NULL,
    size       bigint NOT NULL,
    sha256     text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    media_type text NOT NULL,
    object_key text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    PRIMARY KEY (tenant_id, path),
    FOREIGN KEY (tenant_id, object_key) REFERENCES objects
);
CREATE INDEX files_object ON files (tenant_id, object_key);
CREATE INDEX files_expiry ON files (tenant_id, expires_at) WHERE expires_at IS NOT NULL;

-- Artifacts that are there already enter the ledger. The owner is bound by forced policies, too.
ALTER TABLE artifacts NO FORCE ROW LEVEL SECURITY;
INSERT INTO objects (tenant_id, object_key, bytes, state)
    SELECT tenant_id, object_key, max(size), 'kept' FROM artifacts GROUP BY 1, 2;
INSERT INTO storage_usage SELECT tenant_id, sum(bytes), count(*) FROM objects GROUP BY 1;
ALTER TABLE artifacts ADD FOREIGN KEY (tenant_id, object_key) REFERENCES objects;
ALTER TABLE artifacts FORCE ROW LEVEL SECURITY;
CREATE INDEX artifacts_object ON artifacts (tenant_id, object_key);

-- An input is text or bytes of the request, or an object of the tenant's.
ALTER TABLE input_files
    ALTER COLUMN content DROP NOT NULL,
    ADD COLUMN object_key text,
    ADD COLUMN size bigint,
    ADD COLUMN sha256 text,
    ADD CHECK ((content IS NULL) = (object_key IS NOT NULL)),
    ADD CHECK ((object_key IS NULL) = (size IS NULL) AND (size IS NULL) = (sha256 IS NULL)),
    ADD FOREIGN KEY (tenant_id, object_key) REFERENCES objects;
CREATE INDEX input_files_object ON input_files (tenant_id, object_key)
    WHERE object_key IS NOT NULL;

ALTER TABLE executions ADD COLUMN artifacts_to text;
COMMENT ON COLUMN executions.artifacts_to IS 'What the names of files made from artifacts begin with.';
CREATE INDEX executions_ended ON executions (tenant_id, ended_at) WHERE ended_at IS NOT NULL;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['objects', 'storage_usage', 'files'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY tenant ON %I USING (tenant_id = app_tenant()) '
                       'WITH CHECK (tenant_id = app_tenant())', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['objects', 'files'] LOOP
        EXECUTE format('CREATE POLICY across_tenants ON %I FOR SELECT TO runner_definer '
                       'USING (true)', name);
    END LOOP;
END
$$;

GRANT SELECT, INSERT, UPDATE (state, since) ON objects TO runner_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON files TO runner_api;
GRANT SELECT ON storage_usage TO runner_api, runner_worker;
GRANT SELECT, INSERT, DELETE, UPDATE (state, since) ON objects TO runner_worker;
GRANT SELECT, INSERT, UPDATE ON files TO runner_worker;
GRANT SELECT, UPDATE (state, since) ON objects TO runner_definer;
GRANT SELECT, INSERT, UPDATE ON storage_usage TO runner_definer;
GRANT SELECT, DELETE, UPDATE (expires_at) ON files TO runner_definer;
GRANT SELECT, DELETE ON input_files TO runner_definer;
GRANT SELECT ON artifacts, events TO runner_definer;
GRANT DELETE ON executions TO runner_definer;

GRANT CREATE ON SCHEMA public TO runner_definer;

CREATE FUNCTION count_object() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    more_bytes bigint := 0;
    more       bigint := 0;
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.state <> 'doomed' THEN
        more_bytes := more_bytes - OLD.bytes;
        more := more - 1;
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.state <> 'doomed' THEN
        more_bytes := more_bytes + NEW.bytes;
        more := more + 1;
    END IF;
    IF TG_OP = 'INSERT' THEN
        -- Locks the tenant's sum until commit: what a quota is then compared with is exact.
        INSERT INTO storage_usage AS u VALUES (NEW.tenant_id, more_bytes, more)
        ON CONFLICT (tenant_id) DO UPDATE
        SET bytes = u.bytes + excluded.bytes, objects = u.objects + excluded.objects;
    ELSIF more <> 0 OR more_bytes <> 0 THEN
        UPDATE storage_usage u SET bytes = u.bytes + more_bytes, objects = u.objects + more
        WHERE u.tenant_id = OLD.tenant_id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER count_object AFTER INSERT OR UPDATE OR DELETE ON objects
    FOR EACH ROW EXECUTE FUNCTION count_object();

-- What nothing refers to any more is doomed. Its row is locked first: of two that let go of it at
-- once the second sees that the first has, and a new reference, which locks it as well, is seen.
CREATE FUNCTION release_object() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF OLD.object_key IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM FROM objects o
    WHERE o.tenant_id = OLD.tenant_id AND o.object_key = OLD.object_key FOR UPDATE;
    UPDATE objects o SET state = 'doomed', since = clock_timestamp()
    WHERE o.tenant_id = OLD.tenant_id AND o.object_key = OLD.object_key
      AND NOT EXISTS (SELECT FROM files r
                      WHERE r.tenant_id = o.tenant_id AND r.object_key = o.object_key)
      AND NOT EXISTS (SELECT FROM artifacts r
                      WHERE r.tenant_id = o.tenant_id AND r.object_key = o.object_key)
      AND NOT EXISTS (SELECT FROM input_files r
                      WHERE r.tenant_id = o.tenant_id AND r.object_key = o.object_key);
    RETURN NULL;
END
$$;
CREATE TRIGGER release_object AFTER DELETE OR UPDATE OF object_key ON files
    FOR EACH ROW EXECUTE FUNCTION release_object();
CREATE TRIGGER release_object AFTER DELETE ON artifacts
    FOR EACH ROW EXECUTE FUNCTION release_object();
CREATE TRIGGER release_object AFTER DELETE ON input_files
    FOR EACH ROW EXECUTE FUNCTION release_object();

-- An execution that has ended needs its inputs no more: what was overwritten meanwhile may go.
CREATE FUNCTION release_inputs() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    DELETE FROM input_files i
    WHERE i.tenant_id = NEW.tenant_id AND i.execution_id = NEW.execution_id
      AND i.object_key IS NOT NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER release_inputs AFTER UPDATE OF state ON executions FOR EACH ROW
    WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION release_inputs();

-- Across tenants: who has something that is to go. What goes then goes tenant by tenant.
CREATE FUNCTION tenants_with_expired(p_days integer, p_grace interval, p_abandoned interval)
    RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT t.tenant_id FROM tenants t
    WHERE EXISTS (SELECT FROM executions e WHERE e.tenant_id = t.tenant_id AND e.ended_at
                  < now() - make_interval(days => COALESCE(t.retention_days, p_days)))
       OR EXISTS (SELECT FROM files f WHERE f.tenant_id = t.tenant_id AND f.expires_at <= now())
       OR EXISTS (SELECT FROM objects o WHERE o.tenant_id = t.tenant_id AND o.state <> 'kept'
                  AND o.since < now() - CASE o.state WHEN 'doomed' THEN p_grace
                                                     ELSE p_abandoned END);
END;

-- Of this transaction's tenant: executions that ended longer ago than it keeps them, with all
-- that belongs to them. One that runs has no end and is out of reach.
CREATE FUNCTION remove_expired_executions(p_days integer, p_limit integer)
    RETURNS TABLE (executions bigint, events bigint, input_files bigint, artifacts bigint)
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH chosen AS (
        SELECT e.tenant_id, e.execution_id FROM executions e JOIN tenants t USING (tenant_id)
        WHERE e.tenant_id = app_tenant() AND e.ended_at
              < now() - make_interval(days => COALESCE(t.retention_days, p_days))
        ORDER BY e.ended_at LIMIT p_limit FOR UPDATE OF e SKIP LOCKED
    ), gone AS (
        DELETE FROM executions e USING chosen c
        WHERE e.tenant_id = c.tenant_id AND e.execution_id = c.execution_id
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM gone),
           (SELECT count(*) FROM events JOIN chosen USING (tenant_id, execution_id)),
           (SELECT count(*) FROM input_files JOIN chosen USING (tenant_id, execution_id)),
           (SELECT count(*) FROM artifacts JOIN chosen USING (tenant_id, execution_id));
END;

CREATE FUNCTION remove_expired_files(p_limit integer) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH chosen AS (
        SELECT f.tenant_id, f.path FROM files f
        WHERE f.tenant_id = app_tenant() AND f.expires_at <= now()
        ORDER BY f.expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM files f USING chosen c WHERE f.tenant_id = c.tenant_id AND f.path = c.path
        RETURNING 1
    )
    SELECT count(*) FROM gone;
END;

DO $$
DECLARE
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY[
        'count_object()', 'release_object()', 'release_inputs()',
        'tenants_with_expired(integer, interval, interval)',
        'remove_expired_executions(integer, integer)', 'remove_expired_files(integer)'] LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO runner_definer', signature);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    END LOOP;
END
$$;
GRANT EXECUTE ON FUNCTION tenants_with_expired(integer, interval, interval),
    remove_expired_executions(integer, integer), remove_expired_files(integer) TO runner_worker;
REVOKE CREATE ON SCHEMA public FROM runner_definer;

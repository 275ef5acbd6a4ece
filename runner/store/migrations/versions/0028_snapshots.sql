-- The files of a sandbox, kept as a sealed object. What a new sandbox needs to be like the old one
-- stands beside it; the sandbox itself may have gone.
CREATE TABLE snapshots (
    tenant_id   uuid NOT NULL REFERENCES tenants(tenant_id) ON DELETE CASCADE,
    snapshot_id uuid NOT NULL,
    sandbox_id  uuid NOT NULL,
    name        text,
    metadata    jsonb NOT NULL,
    created_by  text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    image       text NOT NULL,
    size        text NOT NULL,
    resources   jsonb NOT NULL,
    isolation   text NOT NULL CHECK (isolation IN ('container', 'gvisor')),
    bytes       bigint NOT NULL CHECK (bytes >= 0),
    sha256      text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    sealed_key  bytea NOT NULL,
    object_key  text NOT NULL,
    PRIMARY KEY (tenant_id, snapshot_id),
    FOREIGN KEY (tenant_id, object_key) REFERENCES objects(tenant_id, object_key)
);
CREATE INDEX snapshots_object ON snapshots (tenant_id, object_key);
COMMENT ON COLUMN snapshots.bytes IS 'Of the archive in the object.';
COMMENT ON COLUMN snapshots.sha256 IS 'Of the archive before it was sealed.';
COMMENT ON COLUMN snapshots.sealed_key IS 'The object''s own key, under the tenant''s data key.';

ALTER TABLE snapshots ENABLE ROW LEVEL SECURITY;
ALTER TABLE snapshots FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON snapshots USING (tenant_id = app_tenant())
    WITH CHECK (tenant_id = app_tenant());

CREATE TRIGGER release_object AFTER DELETE ON snapshots
    FOR EACH ROW EXECUTE FUNCTION release_object();

GRANT SELECT, INSERT, DELETE ON snapshots TO runner_api;
GRANT UPDATE (bytes) ON objects TO runner_definer;

GRANT CREATE ON SCHEMA public TO runner_definer;

-- How large a snapshot is shows only once it is written. The API may write no sums, so this makes
-- its object as large as it is: never larger than what was reserved, and only while it is written.
CREATE FUNCTION keep_object_as(p_object_key text, p_bytes bigint) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE objects o SET state = 'kept', bytes = p_bytes, since = clock_timestamp()
    WHERE o.tenant_id = app_tenant() AND o.object_key = p_object_key AND o.state = 'writing'
      AND p_bytes BETWEEN 0 AND o.bytes;
    RETURN FOUND;
END
$$;
ALTER FUNCTION keep_object_as(text, bigint) OWNER TO runner_definer;

REVOKE CREATE ON SCHEMA public FROM runner_definer;
REVOKE ALL ON FUNCTION keep_object_as(text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION keep_object_as(text, bigint) TO runner_api;

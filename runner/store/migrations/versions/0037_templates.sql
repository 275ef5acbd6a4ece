-- Templates, their logs, and sandboxes in which they are built.

-- What sandboxes are made from: an image of the operator or another template, and what the steps of
-- a build changed in it. The changes are an archive, kept as a sealed object.
CREATE TABLE templates (
    tenant_id     uuid NOT NULL REFERENCES tenants(tenant_id) ON DELETE CASCADE,
    template_id   uuid NOT NULL,
    name          text NOT NULL,
    tag           text NOT NULL,
    state         text NOT NULL DEFAULT 'building' CHECK (state IN ('building', 'ready', 'failed')),
    detail        text,
    created_by    text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    ended_at      timestamptz,
    due_at        timestamptz NOT NULL,
    base_image    text NOT NULL,
    base_template uuid,
    env           jsonb NOT NULL,
    steps         text[] NOT NULL,
    bytes         bigint CHECK (bytes >= 0),
    sha256        text CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    sealed_key    bytea,
    object_key    text,
    CONSTRAINT templates_ended CHECK ((state = 'building') = (ended_at IS NULL)),
    CONSTRAINT templates_content CHECK ((state = 'building' OR (state = 'ready') = (object_key IS NOT NULL))
        AND num_nulls(bytes, sha256, sealed_key, object_key) IN (0, 4)),
    PRIMARY KEY (tenant_id, template_id),
    FOREIGN KEY (tenant_id, base_template) REFERENCES templates(tenant_id, template_id),
    FOREIGN KEY (tenant_id, object_key) REFERENCES objects(tenant_id, object_key)
);
CREATE INDEX templates_base ON templates (tenant_id, base_template)
WHERE (base_template IS NOT NULL);
CREATE INDEX templates_name ON templates (tenant_id, name, tag, template_id);
CREATE INDEX templates_object ON templates (tenant_id, object_key) WHERE (object_key IS NOT NULL);
COMMENT ON COLUMN templates.due_at IS
    'When its build has ended at the latest; a build that goes on then has lost its process.';
COMMENT ON COLUMN templates.base_image IS 'The operator''s image below all templates.';
COMMENT ON COLUMN templates.env IS 'Variables of every process in its sandboxes.';
COMMENT ON COLUMN templates.steps IS
    'For each step, a hash of it and of all that came before, from the image on.';
COMMENT ON COLUMN templates.bytes IS 'Of the archive in the object.';
COMMENT ON COLUMN templates.sha256 IS 'Of the archive before it was sealed.';
COMMENT ON COLUMN templates.sealed_key IS 'The object''s own key, under the tenant''s data key.';

-- What a build writes, in order.
CREATE TABLE template_logs (
    tenant_id   uuid NOT NULL,
    template_id uuid NOT NULL,
    seq         bigint NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    text        text NOT NULL,
    PRIMARY KEY (tenant_id, template_id, seq),
    FOREIGN KEY (tenant_id, template_id)
        REFERENCES templates(tenant_id, template_id) ON DELETE CASCADE
);

ALTER TABLE templates ENABLE ROW LEVEL SECURITY;
ALTER TABLE templates FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON templates USING (tenant_id = app_tenant())
    WITH CHECK (tenant_id = app_tenant());
ALTER TABLE template_logs ENABLE ROW LEVEL SECURITY;
ALTER TABLE template_logs FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON template_logs USING (tenant_id = app_tenant())
    WITH CHECK (tenant_id = app_tenant());

CREATE TRIGGER release_object AFTER DELETE OR UPDATE OF object_key ON templates
    FOR EACH ROW EXECUTE FUNCTION release_object();

GRANT SELECT, INSERT, UPDATE (state, detail, ended_at, bytes, sha256, sealed_key, object_key), DELETE
    ON templates TO runner_api;
GRANT SELECT, INSERT ON template_logs TO runner_api;
GRANT SELECT (tenant_id, template_id, state, base_image, base_template, bytes, sha256, sealed_key,
              object_key)
    ON templates TO runner_worker;

ALTER TABLE sandboxes ADD COLUMN builds boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN sandboxes.builds IS
    'Whether a template is built in it: its processes are root, which is nobody on the host.';
GRANT SELECT (builds), INSERT (builds) ON sandboxes TO runner_api;

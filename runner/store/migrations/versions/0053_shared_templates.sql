-- Tags can be moved: which build a name and a tag stand for is a row of its own. The operator can
-- make a template everybody's.

CREATE TABLE template_tags (
    tenant_id   uuid NOT NULL,
    name        text NOT NULL,
    tag         text NOT NULL,
    template_id uuid NOT NULL,
    assigned_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, name, tag),
    FOREIGN KEY (tenant_id, template_id)
        REFERENCES templates(tenant_id, template_id) ON DELETE CASCADE
);
CREATE INDEX template_tags_template ON template_tags (tenant_id, template_id);
COMMENT ON TABLE template_tags IS 'Which build each name and tag of a tenant stands for.';
ALTER TABLE templates ADD COLUMN more_tags text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN templates.more_tags IS 'What it is tagged besides `tag` once it is ready.';

CREATE TABLE public_templates (
    name         text NOT NULL,
    tag          text NOT NULL,
    tenant_id    uuid NOT NULL,
    template_id  uuid NOT NULL,
    published_by text NOT NULL,
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (name, tag),
    FOREIGN KEY (tenant_id, template_id)
        REFERENCES templates(tenant_id, template_id) ON DELETE CASCADE
);
CREATE INDEX public_templates_template ON public_templates (tenant_id, template_id);
COMMENT ON TABLE public_templates IS
    'Templates that the operator has made everybody''s. Only the operator writes here.';

-- What a template is built on may be the operator's.
ALTER TABLE templates ADD COLUMN base_owner uuid;
ALTER TABLE templates NO FORCE ROW LEVEL SECURITY;
UPDATE templates SET base_owner = tenant_id WHERE base_template IS NOT NULL;
INSERT INTO template_tags (tenant_id, name, tag, template_id, assigned_at)
SELECT DISTINCT ON (tenant_id, name, tag) tenant_id, name, tag, template_id, ended_at
FROM templates WHERE state = 'ready'
ORDER BY tenant_id, name, tag, template_id DESC;
ALTER TABLE templates FORCE ROW LEVEL SECURITY;
COMMENT ON COLUMN templates.base_owner IS 'Whose the template below is.';
DO $$
DECLARE
    given text;
BEGIN
    SELECT conname INTO STRICT given FROM pg_constraint
    WHERE conrelid = 'templates'::regclass AND confrelid = 'templates'::regclass;
    EXECUTE format('ALTER TABLE templates DROP CONSTRAINT %I', given);
END
$$;
ALTER TABLE templates
    ADD CONSTRAINT templates_below FOREIGN KEY (base_owner, base_template)
        REFERENCES templates(tenant_id, template_id),
    ADD CONSTRAINT templates_base_owner CHECK ((base_owner IS NULL) = (base_template IS NULL));
DROP INDEX templates_base;
CREATE INDEX templates_base ON templates (base_owner, base_template)
WHERE (base_template IS NOT NULL);

ALTER TABLE template_tags ENABLE ROW LEVEL SECURITY;
ALTER TABLE template_tags FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON template_tags USING (tenant_id = app_tenant())
    WITH CHECK (tenant_id = app_tenant());
ALTER TABLE public_templates ENABLE ROW LEVEL SECURITY;
ALTER TABLE public_templates FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON public_templates USING (tenant_id = app_tenant())
    WITH CHECK (tenant_id = app_tenant());
CREATE POLICY everybodys ON public_templates FOR SELECT USING (true);
CREATE POLICY everybodys ON templates FOR SELECT TO runner_api, runner_worker
    USING (EXISTS (SELECT FROM public_templates p
                   WHERE p.tenant_id = templates.tenant_id AND p.template_id = templates.template_id));
CREATE POLICY across_tenants ON templates FOR SELECT TO runner_definer USING (true);

GRANT SELECT, INSERT, UPDATE (template_id, assigned_at), DELETE ON template_tags TO runner_api;
GRANT SELECT ON public_templates TO runner_api, runner_worker;
GRANT SELECT, INSERT, UPDATE (tenant_id, template_id, published_by, published_at), DELETE
    ON public_templates TO runner_operator;
GRANT SELECT (tenant_id, template_id, name, tag, state) ON templates TO runner_operator;
GRANT UPDATE (base_owner) ON templates TO runner_api;
GRANT SELECT (base_owner) ON templates TO runner_worker;
GRANT SELECT (tenant_id, template_id, base_owner, base_template) ON templates TO runner_definer;
GRANT DELETE ON template_tags, public_templates TO runner_eraser;

-- Whether a template of this tenant is below another one, which may be another tenant's.
CREATE FUNCTION is_below_a_template(p_template uuid) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM templates
                   WHERE base_owner = app_tenant() AND base_template = p_template)
$$;
GRANT CREATE ON SCHEMA public TO runner_definer;
ALTER FUNCTION is_below_a_template(uuid) OWNER TO runner_definer;
REVOKE CREATE ON SCHEMA public FROM runner_definer;
REVOKE ALL ON FUNCTION is_below_a_template(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_below_a_template(uuid) TO runner_api, runner_worker;

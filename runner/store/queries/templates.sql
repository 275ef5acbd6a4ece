-- part: shown
-- Templates as a tenant sees them: its own, and everybody's.
SELECT t.tenant_id AS owner, t.template_id, t.name, t.tag,
       CASE WHEN l.lost THEN 'failed' ELSE t.state END AS state,
       CASE WHEN l.lost THEN 'it lost the client or the process that built it: build it again'
            ELSE t.detail END AS detail,
       CASE WHEN t.tenant_id = app_tenant() THEN t.created_by ELSE 'operator' END AS created_by,
       t.created_at, t.ended_at, t.base_image, t.base_template, t.base_owner, t.env, t.steps,
       t.bytes, t.sha256, t.start_command, t.ready_command, t.ready_s, t.more_tags, t.limits, t.workdir,
       t.username,
       CASE WHEN t.tenant_id = app_tenant()
            THEN ARRAY(SELECT g.tag FROM template_tags g WHERE g.tenant_id = t.tenant_id
                       AND g.template_id = t.template_id ORDER BY g.tag)
            ELSE ARRAY(SELECT p.tag FROM public_templates p WHERE p.tenant_id = t.tenant_id
                       AND p.template_id = t.template_id ORDER BY p.tag) END AS tags,
       EXISTS (SELECT FROM public_templates p WHERE p.tenant_id = t.tenant_id
               AND p.template_id = t.template_id) AS public
FROM templates t
CROSS JOIN LATERAL (SELECT t.state IN ('waiting', 'building') AND t.due_at < now() AS lost) l

-- name: insert
INSERT INTO templates (tenant_id, template_id, name, tag, state, created_by, due_at, base_image,
                       base_template, base_owner, env, steps, start_command, ready_command, ready_s,
                       more_tags, limits, workdir, username)
VALUES (app_tenant(), %(template_id)s, %(name)s, %(tag)s, %(state)s, %(created_by)s,
        now() + %(within)s, %(base_image)s, %(base_template)s, %(base_owner)s, %(env)s,
        %(steps)s, %(start_command)s, %(ready_command)s, %(ready_s)s, %(more_tags)s,
        %(limits)s, %(workdir)s, %(username)s);

-- name: get
{shown}
WHERE t.template_id = %(template_id)s;

-- name: list
SELECT * FROM ({shown}) s
WHERE CASE WHEN %(public)s THEN public ELSE owner = app_tenant() END
  AND (%(before)s::uuid IS NULL OR template_id < %(before)s)
  AND (%(name)s::text IS NULL OR name = %(name)s)
ORDER BY template_id DESC LIMIT %(limit)s;

-- name: named
{shown}
JOIN (
    SELECT tenant_id, template_id, 1 AS turn FROM template_tags
    WHERE tenant_id = app_tenant() AND name = %(name)s AND tag = %(tag)s
    UNION ALL
    SELECT tenant_id, template_id, 2 FROM public_templates WHERE name = %(name)s AND tag = %(tag)s
) n USING (tenant_id, template_id)
WHERE t.state = 'ready' ORDER BY n.turn LIMIT 1;

-- name: begun_alike
{shown}
WHERE t.tenant_id = app_tenant() AND t.base_image = %(base_image)s AND t.state = 'ready'
  AND cardinality(t.steps) > 0 AND t.steps = (%(steps)s::text[])[:cardinality(t.steps)]
  -- After the steps of another user's template, homes and owners of files would be others.
  AND COALESCE(t.username, %(image_user)s) = %(sandbox_user)s
ORDER BY cardinality(t.steps) DESC, t.template_id DESC LIMIT 1;

-- name: building
SELECT count(*) AS builds FROM templates
WHERE tenant_id = app_tenant() AND state = 'building' AND due_at > now();

-- name: start
UPDATE templates
SET state = 'building', due_at = now() + %(within)s, base_image = %(base_image)s,
    base_template = %(base_template)s, base_owner = %(base_owner)s, env = %(env)s, steps = %(steps)s,
    start_command = %(start_command)s, ready_command = %(ready_command)s, ready_s = %(ready_s)s,
    -- Its own came when it was announced.
    limits = %(limits)s::jsonb || limits, workdir = %(workdir)s,
    username = %(username)s
WHERE tenant_id = app_tenant() AND template_id = %(template_id)s AND state = 'waiting'
  -- One whose time is over counts in no quota any more.
  AND due_at > now();

-- name: keep
UPDATE templates
SET bytes = %(bytes)s, sha256 = %(sha256)s, sealed_key = %(sealed_key)s,
    object_key = %(object_key)s
WHERE tenant_id = app_tenant() AND template_id = %(template_id)s AND state = 'building';

-- name: ready
WITH ended AS (
    UPDATE templates SET state = 'ready', ended_at = clock_timestamp()
    WHERE tenant_id = app_tenant() AND template_id = %(template_id)s AND state = 'building'
      AND object_key IS NOT NULL
    RETURNING tenant_id, template_id, name, array_append(more_tags, tag) AS given
)
INSERT INTO template_tags (tenant_id, name, tag, template_id)
SELECT DISTINCT tenant_id, name, one, template_id FROM ended CROSS JOIN unnest(given) one
ON CONFLICT (tenant_id, name, tag) DO UPDATE
SET template_id = EXCLUDED.template_id, assigned_at = clock_timestamp();

-- name: assign
INSERT INTO template_tags (tenant_id, name, tag, template_id)
SELECT tenant_id, name, one, template_id
FROM templates CROSS JOIN unnest(%(tags)s::text[]) one
WHERE tenant_id = app_tenant() AND template_id = %(template_id)s AND state = 'ready'
ON CONFLICT (tenant_id, name, tag) DO UPDATE
SET template_id = EXCLUDED.template_id, assigned_at = clock_timestamp();

-- name: unassign
DELETE FROM template_tags
WHERE tenant_id = app_tenant() AND name = %(name)s AND tag = ANY (%(tags)s::text[])
  AND (%(template_id)s::uuid IS NULL OR template_id = %(template_id)s);

-- name: tags
SELECT tag, template_id, assigned_at FROM template_tags
WHERE tenant_id = app_tenant() AND name = %(name)s ORDER BY tag;

-- name: failed
UPDATE templates
SET state = 'failed', ended_at = clock_timestamp(), detail = %(detail)s, bytes = NULL,
    -- It holds nothing, so nothing below is kept for it.
    base_template = NULL, base_owner = NULL,
    sha256 = NULL, sealed_key = NULL, object_key = NULL
WHERE tenant_id = app_tenant() AND template_id = %(template_id)s AND state = 'building';

-- name: delete
DELETE FROM templates t
WHERE tenant_id = app_tenant() AND template_id = %(template_id)s
  AND (state <> 'building' OR due_at < now())
  AND NOT is_below_a_template(template_id)
  AND NOT EXISTS (SELECT FROM public_templates p
                  WHERE p.tenant_id = t.tenant_id AND p.template_id = t.template_id)
RETURNING name;

-- name: forget_failed
DELETE FROM templates t
WHERE tenant_id = app_tenant() AND (state = 'failed' OR state IN ('waiting', 'building') AND due_at < now())
  AND NOT is_below_a_template(template_id)
  AND template_id NOT IN (
      SELECT template_id FROM templates
      WHERE tenant_id = app_tenant()
        AND (state = 'failed' OR state IN ('waiting', 'building') AND due_at < now())
      ORDER BY template_id DESC LIMIT %(keep)s);

-- name: forget_waiting
DELETE FROM templates
WHERE tenant_id = app_tenant() AND state = 'waiting' AND template_id NOT IN (
    SELECT template_id FROM templates
    WHERE tenant_id = app_tenant() AND state = 'waiting'
    ORDER BY template_id DESC LIMIT %(keep)s);

-- name: content
SELECT tenant_id AS owner, base_image, base_template, base_owner, bytes, sha256, sealed_key, object_key,
       username
FROM templates
WHERE template_id = %(template_id)s AND object_key IS NOT NULL;

-- name: say
INSERT INTO template_logs (tenant_id, template_id, seq, text)
VALUES (app_tenant(), %(template_id)s, %(seq)s, %(text)s) ON CONFLICT DO NOTHING;

-- name: said
SELECT seq, at, text FROM template_logs
WHERE tenant_id = app_tenant() AND template_id = %(template_id)s AND seq > %(after)s
ORDER BY seq LIMIT %(limit)s;

-- name: to_publish
SELECT t.name, COALESCE(%(tag)s, t.tag) AS tag, p.tenant_id AS holder
FROM templates t
LEFT JOIN public_templates p ON p.name = t.name AND p.tag = COALESCE(%(tag)s, t.tag)
WHERE t.tenant_id = app_tenant() AND t.template_id = %(template_id)s AND t.state = 'ready';

-- name: publish
INSERT INTO public_templates (name, tag, tenant_id, template_id, published_by)
SELECT name, %(tag)s, tenant_id, template_id, %(published_by)s
FROM templates
WHERE tenant_id = app_tenant() AND template_id = %(template_id)s AND state = 'ready'
ON CONFLICT (name, tag) DO UPDATE
SET tenant_id = EXCLUDED.tenant_id, template_id = EXCLUDED.template_id,
    published_by = EXCLUDED.published_by, published_at = clock_timestamp()
RETURNING name, tag, tenant_id, template_id, published_by, published_at;

-- name: unpublish
DELETE FROM public_templates
WHERE tenant_id = app_tenant() AND name = %(name)s AND tag = %(tag)s;

-- name: published
SELECT name, tag, tenant_id, template_id, published_by, published_at FROM public_templates
ORDER BY name, tag;

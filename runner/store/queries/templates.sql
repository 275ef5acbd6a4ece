-- name: insert
INSERT INTO templates (tenant_id, template_id, name, tag, state, created_by, due_at, base_image,
                       base_template, env, steps, start_command, ready_command, ready_s)
VALUES (app_tenant(), %(template_id)s, %(name)s, %(tag)s, %(state)s, %(created_by)s,
        now() + %(within)s, %(base_image)s, %(base_template)s, %(env)s, %(steps)s,
        %(start_command)s, %(ready_command)s, %(ready_s)s)
RETURNING template_id, name, tag, state, detail, created_by, created_at, ended_at, base_image,
          base_template, env, steps, bytes, sha256, start_command, ready_command, ready_s;

-- name: get
SELECT template_id, name, tag, CASE WHEN t.lost THEN 'failed' ELSE state END AS state,
       CASE WHEN t.lost THEN 'it lost the client or the process that built it: build it again' ELSE detail END
           AS detail,
       created_by, created_at, ended_at, base_image, base_template, env, steps, bytes, sha256,
       start_command, ready_command, ready_s
FROM (SELECT *, state IN ('waiting', 'building') AND due_at < now() AS lost FROM templates) t
WHERE tenant_id = app_tenant() AND template_id = %(template_id)s;

-- name: list
SELECT template_id, name, tag, CASE WHEN t.lost THEN 'failed' ELSE state END AS state,
       CASE WHEN t.lost THEN 'it lost the client or the process that built it: build it again' ELSE detail END
           AS detail,
       created_by, created_at, ended_at, base_image, base_template, env, steps, bytes, sha256,
       start_command, ready_command, ready_s
FROM (SELECT *, state IN ('waiting', 'building') AND due_at < now() AS lost FROM templates) t
WHERE tenant_id = app_tenant() AND (%(before)s::uuid IS NULL OR template_id < %(before)s)
  AND (%(name)s::text IS NULL OR name = %(name)s)
ORDER BY template_id DESC LIMIT %(limit)s;

-- name: newest
SELECT template_id, name, tag, state, detail, created_by, created_at, ended_at, base_image,
       base_template, env, steps, bytes, sha256, start_command, ready_command, ready_s
FROM templates
WHERE tenant_id = app_tenant() AND name = %(name)s AND tag = %(tag)s AND state = 'ready'
ORDER BY template_id DESC LIMIT 1;

-- name: begun_alike
SELECT template_id, name, tag, state, detail, created_by, created_at, ended_at, base_image,
       base_template, env, steps, bytes, sha256, start_command, ready_command, ready_s
FROM templates
WHERE tenant_id = app_tenant() AND base_image = %(base_image)s AND state = 'ready'
  AND cardinality(steps) > 0 AND steps = (%(steps)s::text[])[:cardinality(steps)]
ORDER BY cardinality(steps) DESC, template_id DESC LIMIT 1;

-- name: building
SELECT count(*) AS builds FROM templates
WHERE tenant_id = app_tenant() AND state = 'building' AND due_at > now();

-- name: start
UPDATE templates
SET state = 'building', due_at = now() + %(within)s, base_image = %(base_image)s,
    base_template = %(base_template)s, env = %(env)s, steps = %(steps)s,
    start_command = %(start_command)s, ready_command = %(ready_command)s, ready_s = %(ready_s)s
WHERE tenant_id = app_tenant() AND template_id = %(template_id)s AND state = 'waiting'
RETURNING template_id, name, tag, state, detail, created_by, created_at, ended_at, base_image,
          base_template, env, steps, bytes, sha256, start_command, ready_command, ready_s;

-- name: keep
UPDATE templates
SET bytes = %(bytes)s, sha256 = %(sha256)s, sealed_key = %(sealed_key)s,
    object_key = %(object_key)s
WHERE tenant_id = app_tenant() AND template_id = %(template_id)s AND state = 'building';

-- name: ready
UPDATE templates SET state = 'ready', ended_at = clock_timestamp()
WHERE tenant_id = app_tenant() AND template_id = %(template_id)s AND state = 'building'
  AND object_key IS NOT NULL;

-- name: failed
UPDATE templates
SET state = 'failed', ended_at = clock_timestamp(), detail = %(detail)s, bytes = NULL,
    sha256 = NULL, sealed_key = NULL, object_key = NULL
WHERE tenant_id = app_tenant() AND template_id = %(template_id)s AND state = 'building';

-- name: delete
DELETE FROM templates t
WHERE tenant_id = app_tenant() AND template_id = %(template_id)s
  AND (state <> 'building' OR due_at < now())
  AND NOT EXISTS (SELECT FROM templates upon
                  WHERE upon.tenant_id = t.tenant_id AND upon.base_template = t.template_id)
RETURNING name;

-- name: forget_failed
DELETE FROM templates t
WHERE tenant_id = app_tenant() AND (state = 'failed' OR state IN ('waiting', 'building') AND due_at < now())
  AND NOT EXISTS (SELECT FROM templates upon
                  WHERE upon.tenant_id = t.tenant_id AND upon.base_template = t.template_id)
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
SELECT base_image, base_template, bytes, sha256, sealed_key, object_key
FROM templates
WHERE tenant_id = app_tenant() AND template_id = %(template_id)s AND object_key IS NOT NULL;

-- name: say
INSERT INTO template_logs (tenant_id, template_id, seq, text)
VALUES (app_tenant(), %(template_id)s, %(seq)s, %(text)s) ON CONFLICT DO NOTHING;

-- name: said
SELECT seq, at, text FROM template_logs
WHERE tenant_id = app_tenant() AND template_id = %(template_id)s AND seq > %(after)s
ORDER BY seq LIMIT %(limit)s;

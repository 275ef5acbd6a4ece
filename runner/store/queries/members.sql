-- name: list
SELECT m.user_id AS member_id, u.email, m.role, m.created_by, m.created_at,
       NULL::timestamptz AS expires_at
FROM memberships m JOIN users u USING (user_id) WHERE m.tenant_id = app_tenant()
UNION ALL
SELECT invitation_id, email, role, created_by, created_at, expires_at
FROM invitations WHERE tenant_id = app_tenant()
ORDER BY created_at, member_id LIMIT %(limit)s;

-- name: lock
SELECT 1 FROM memberships WHERE tenant_id = app_tenant() ORDER BY user_id FOR UPDATE;

-- name: get
SELECT m.user_id AS member_id, u.email, m.role, m.created_by, m.created_at,
       NULL::timestamptz AS expires_at
FROM memberships m JOIN users u USING (user_id)
WHERE m.tenant_id = app_tenant() AND m.user_id = %(member_id)s;

-- name: named
SELECT m.user_id AS member_id, u.email, m.role, m.created_by, m.created_at,
       NULL::timestamptz AS expires_at
FROM memberships m JOIN users u USING (user_id)
WHERE m.tenant_id = app_tenant() AND u.email = %(email)s;

-- name: owners
SELECT count(*) AS owners FROM memberships WHERE tenant_id = app_tenant() AND role = 'owner';

-- name: add
INSERT INTO memberships (tenant_id, user_id, role, created_by)
VALUES (app_tenant(), %(user_id)s, %(role)s, %(created_by)s) ON CONFLICT DO NOTHING;

-- name: set_role
UPDATE memberships SET role = %(role)s WHERE tenant_id = app_tenant() AND user_id = %(member_id)s;

-- name: remove
DELETE FROM memberships WHERE tenant_id = app_tenant() AND user_id = %(member_id)s;

-- name: invite
INSERT INTO invitations (tenant_id, invitation_id, email, role, hash, created_by, expires_at)
VALUES (app_tenant(), %(invitation_id)s, %(email)s, %(role)s, %(hash)s, %(created_by)s,
        now() + %(lifetime)s)
ON CONFLICT DO NOTHING;

-- name: invitation
SELECT invitation_id AS member_id, email, role, created_by, created_at, expires_at
FROM invitations WHERE tenant_id = app_tenant() AND invitation_id = %(member_id)s;

-- name: invited
SELECT invitation_id AS member_id, email, role, created_by, created_at, expires_at
FROM invitations WHERE tenant_id = app_tenant() AND email = %(email)s;

-- name: take_back
DELETE FROM invitations WHERE tenant_id = app_tenant() AND invitation_id = %(invitation_id)s;

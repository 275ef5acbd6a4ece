-- name: find_login
SELECT user_id, password, tenant_id FROM find_login(%(email)s, %(tenant)s);

-- name: find_session
SELECT tenant_id, session_id, user_id, role, tier, suspended,
       unused_for > least(interval '1 minute', %(idle)s::interval / 10) AS unused
FROM find_session(%(hash)s, %(idle)s);

-- name: insert_session
INSERT INTO sessions (tenant_id, session_id, user_id, hash, ip, user_agent, expires_at,
                      identity_id)
SELECT tenant_id, %(session_id)s, user_id, %(hash)s, %(ip)s, %(user_agent)s, now() + %(lifetime)s,
       %(identity_id)s
FROM memberships WHERE tenant_id = app_tenant() AND user_id = %(user_id)s FOR KEY SHARE;

-- name: used
UPDATE sessions SET last_used_at = now()
WHERE tenant_id = app_tenant() AND session_id = %(session_id)s;

-- name: memberships
SELECT tenant, role FROM memberships_of(%(user_id)s);

-- name: sessions
SELECT session_id, tenant, ip, user_agent, created_at, last_used_at, expires_at
FROM sessions_of(%(user_id)s, %(idle)s);

-- name: end_sessions
SELECT end_sessions(%(user_id)s, %(session_id)s) AS ended;

-- name: clear_sessions
SELECT clear_sessions(%(user_id)s, %(idle)s);

-- name: password
SELECT email, password FROM password_of(%(user_id)s);

-- name: hold_password
SELECT hold_password(%(user_id)s, %(password)s) AS held;

-- name: replace_password
SELECT replace_password(%(user_id)s, %(old)s, %(new)s) AS replaced;

-- name: find_invitation
SELECT tenant_id, invitation_id, email, role, created_by, user_id, password
FROM find_invitation(%(hash)s);

-- name: add
SELECT add_user(%(user_id)s, %(email)s, %(password)s) AS added;

-- name: issue_reset
SELECT issue_reset(%(email)s, %(hash)s, now() + %(lifetime)s) AS user_id;

-- name: find_reset
SELECT user_id, email, password FROM find_reset(%(hash)s);

-- name: reset_password
SELECT user_id, sessions_ended FROM reset_password(%(hash)s, %(password)s);

-- name: standing
SELECT tenant_id, tier, suspended FROM tenant_standing(%(name)s);

-- name: find_identity
SELECT tenant_id, identity_id, user_id, role, tier, suspended
FROM find_identity(%(issuer)s, %(subject)s, %(tenant)s);

-- name: link
INSERT INTO identities (tenant_id, identity_id, user_id, issuer, subject)
VALUES (app_tenant(), %(identity_id)s, %(user_id)s, %(issuer)s, %(subject)s)
ON CONFLICT (issuer, subject, tenant_id) DO NOTHING;

-- name: unlink
DELETE FROM identities
WHERE tenant_id = app_tenant() AND user_id = %(user_id)s AND issuer = %(issuer)s
  AND subject = %(subject)s;

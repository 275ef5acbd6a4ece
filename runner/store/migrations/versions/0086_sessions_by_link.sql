-- A session that began at the identity provider rests on the link between subject and member, and
-- ends with it. One that began with a password rests on none.
ALTER TABLE sessions
    ADD COLUMN identity_id uuid,
    ADD FOREIGN KEY (tenant_id, identity_id) REFERENCES identities(tenant_id, identity_id)
        ON DELETE CASCADE;
CREATE INDEX sessions_by_identity ON sessions (tenant_id, identity_id)
    WHERE identity_id IS NOT NULL;

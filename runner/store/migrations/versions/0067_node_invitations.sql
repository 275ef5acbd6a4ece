-- Hosts join by one-time tokens, of which only hashes are stored.

CREATE TABLE node_invitations (
    invitation_id uuid PRIMARY KEY,
    node          text NOT NULL CHECK (node ~ '^[A-Za-z0-9._-]{1,63}$'),
    hash          bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    made_by       text NOT NULL,
    made_at       timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL CHECK (expires_at > made_at),
    revoked_at    timestamptz,
    used_at       timestamptz,
    used_as       text,
    CHECK (num_nonnulls(revoked_at, used_at) <= 1),
    CHECK ((used_at IS NULL) = (used_as IS NULL))
);
COMMENT ON COLUMN node_invitations.node IS 'Its name without the digits of its state folder.';
COMMENT ON COLUMN node_invitations.used_as IS 'The node that was given a certificate for it.';

-- No tenant's, and the operator's alone: whoever could write here could become a node.
REVOKE DELETE ON node_invitations FROM runner_eraser;
GRANT SELECT, INSERT (invitation_id, node, hash, made_by, expires_at),
      UPDATE (revoked_at, used_at, used_as)
    ON node_invitations TO runner_operator;

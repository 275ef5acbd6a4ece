-- part: columns
invitation_id, node, made_by, made_at, expires_at, revoked_at, used_at, used_as,
expires_at > clock_timestamp() AND num_nonnulls(revoked_at, used_at) = 0 AS open

-- name: insert
INSERT INTO node_invitations (invitation_id, node, hash, made_by, expires_at)
VALUES (%(invitation_id)s, %(node)s, %(hash)s, %(made_by)s, now() + %(lasting)s)
RETURNING {columns};

-- name: list
SELECT {columns}
FROM node_invitations
WHERE %(ended)s OR (expires_at > clock_timestamp() AND num_nonnulls(revoked_at, used_at) = 0)
ORDER BY invitation_id DESC LIMIT %(limit)s;

-- name: revoke
UPDATE node_invitations SET revoked_at = clock_timestamp()
WHERE invitation_id = %(invitation_id)s AND num_nonnulls(revoked_at, used_at) = 0
RETURNING node;

-- name: use
-- Of two that use it at once, the later one waits for the earlier one's transaction, and then finds
-- it used.
UPDATE node_invitations SET used_at = clock_timestamp(), used_as = %(node_id)s
WHERE hash = %(hash)s AND node = %(node)s AND expires_at > clock_timestamp()
  AND num_nonnulls(revoked_at, used_at) = 0
RETURNING invitation_id;

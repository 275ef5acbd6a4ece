-- Sessions of operators in their console. Each rests on an operator's key, and ends with it.
CREATE TABLE operator_sessions (
    session_id   uuid PRIMARY KEY,
    operator_id  uuid NOT NULL REFERENCES operators(operator_id) ON DELETE CASCADE,
    hash         bytea NOT NULL CHECK (length(hash) = 32) UNIQUE,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    ended_at     timestamptz
);
CREATE INDEX operator_sessions_by_operator ON operator_sessions (operator_id);

-- No tenant's: only the operators' part of the API makes and ends them.
REVOKE DELETE ON operator_sessions FROM runner_eraser;
GRANT SELECT, INSERT (session_id, operator_id, hash, expires_at),
      UPDATE (last_used_at, ended_at)
    ON operator_sessions TO runner_operator;

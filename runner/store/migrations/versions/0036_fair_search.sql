DROP FUNCTION find_token_holders(uuid, integer);

CREATE INDEX sandboxes_living_by_id ON sandboxes (sandbox_id) WHERE (state <> 'ended');
CREATE INDEX sandbox_holders_sandbox ON sandbox_holders (sandbox_id);

GRANT CREATE ON SCHEMA public TO runner_definer;

-- Prefixes of usable keys that may hold a token of a living sandbox. They are no secrets, and prove
-- nothing.
CREATE FUNCTION token_holders_of(p_sandbox uuid) RETURNS TABLE (prefix text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT k.prefix
    FROM sandboxes s
    JOIN api_keys k ON k.tenant_id = s.tenant_id AND k.prefix = substr(s.created_by, 5)
    WHERE s.sandbox_id = p_sandbox AND s.state <> 'ended' AND s.created_by LIKE 'key:%'
      AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
    UNION
    SELECT k.prefix
    FROM sandbox_holders h JOIN sandboxes s USING (tenant_id, sandbox_id)
    JOIN api_keys k USING (tenant_id, prefix)
    WHERE h.sandbox_id = p_sandbox AND s.state <> 'ended'
      AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now());
END;
ALTER FUNCTION token_holders_of(uuid) OWNER TO runner_definer;

-- The same of all living sandboxes, as a signed address of a file names neither sandbox nor key.
-- Tenants take turns, each with its newest sandboxes first, so none hides another's. The answer is
-- one value, because rows would take longer to read than to search: 16 bytes of a sandbox's id and
-- 12 of a prefix, again and again.
CREATE FUNCTION find_token_holders(p_limit integer, p_each integer) RETURNS bytea
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH held AS (
        SELECT s.tenant_id, s.sandbox_id, k.prefix
        FROM sandboxes s
        JOIN api_keys k ON k.tenant_id = s.tenant_id AND k.prefix = substr(s.created_by, 5)
        WHERE s.state <> 'ended' AND s.created_by LIKE 'key:%'
          AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
        UNION
        SELECT s.tenant_id, s.sandbox_id, k.prefix
        FROM sandbox_holders h JOIN sandboxes s USING (tenant_id, sandbox_id)
        JOIN api_keys k USING (tenant_id, prefix)
        WHERE s.state <> 'ended'
          AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
    ), ranked AS (
        SELECT sandbox_id, prefix,
               row_number() OVER (PARTITION BY tenant_id ORDER BY sandbox_id DESC, prefix) AS turn
        FROM held
    ), chosen AS (
        SELECT sandbox_id, prefix FROM ranked WHERE turn <= p_each
        ORDER BY turn, sandbox_id DESC LIMIT p_limit
    )
    SELECT COALESCE(string_agg(uuid_send(sandbox_id) || convert_to(prefix, 'UTF8'), ''), '')
    FROM chosen WHERE length(prefix) = 12;
END;
ALTER FUNCTION find_token_holders(integer, integer) OWNER TO runner_definer;

REVOKE CREATE ON SCHEMA public FROM runner_definer;
REVOKE ALL ON FUNCTION find_token_holders(integer, integer), token_holders_of(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_token_holders(integer, integer), token_holders_of(uuid)
    TO runner_api;

-- The bytes that go through the ports of living sandboxes, in the ledger. Nobody pays for them by a
-- quota: they are what a server inside answers to the tenant's own users.
ALTER TABLE usage_records
    ADD COLUMN port_bytes_in  bigint NOT NULL DEFAULT 0 CHECK (port_bytes_in >= 0),
    ADD COLUMN port_bytes_out bigint NOT NULL DEFAULT 0 CHECK (port_bytes_out >= 0);
ALTER TABLE usage_days
    ADD COLUMN port_bytes_in  bigint NOT NULL DEFAULT 0,
    ADD COLUMN port_bytes_out bigint NOT NULL DEFAULT 0;

-- How far the counters of ports have been entered, as `counted_up` and `counted_down` say of egress.
ALTER TABLE sandboxes
    ADD COLUMN counted_port_in  bigint NOT NULL DEFAULT 0,
    ADD COLUMN counted_port_out bigint NOT NULL DEFAULT 0;
GRANT UPDATE (counted_port_in, counted_port_out) ON sandboxes TO runner_worker;

CREATE OR REPLACE FUNCTION usage_adds_up() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    living boolean := NEW.kind = 'sandbox';
BEGIN
    INSERT INTO usage_days AS d (tenant_id, day, attempts, wall_s, cpu_s, memory_gib_s,
                                 egress_bytes_up, egress_bytes_down, artifact_bytes,
                                 sandbox_wall_s, sandbox_cpu_s, sandbox_memory_gib_s,
                                 port_bytes_in, port_bytes_out)
    VALUES (NEW.tenant_id, (NEW.ended_at AT TIME ZONE 'UTC')::date,
            CASE WHEN living THEN 0 ELSE 1 END, NEW.wall_s, NEW.cpu_s, NEW.memory_gib_s,
            NEW.egress_bytes_up, NEW.egress_bytes_down, NEW.artifact_bytes,
            CASE WHEN living THEN NEW.wall_s ELSE 0 END, CASE WHEN living THEN NEW.cpu_s ELSE 0 END,
            CASE WHEN living THEN NEW.memory_gib_s ELSE 0 END,
            NEW.port_bytes_in, NEW.port_bytes_out)
    ON CONFLICT (tenant_id, day) DO UPDATE
    SET attempts = d.attempts + EXCLUDED.attempts,
        wall_s = d.wall_s + EXCLUDED.wall_s,
        cpu_s = d.cpu_s + EXCLUDED.cpu_s,
        memory_gib_s = d.memory_gib_s + EXCLUDED.memory_gib_s,
        egress_bytes_up = d.egress_bytes_up + EXCLUDED.egress_bytes_up,
        egress_bytes_down = d.egress_bytes_down + EXCLUDED.egress_bytes_down,
        artifact_bytes = d.artifact_bytes + EXCLUDED.artifact_bytes,
        sandbox_wall_s = d.sandbox_wall_s + EXCLUDED.sandbox_wall_s,
        sandbox_cpu_s = d.sandbox_cpu_s + EXCLUDED.sandbox_cpu_s,
        sandbox_memory_gib_s = d.sandbox_memory_gib_s + EXCLUDED.sandbox_memory_gib_s,
        port_bytes_in = d.port_bytes_in + EXCLUDED.port_bytes_in,
        port_bytes_out = d.port_bytes_out + EXCLUDED.port_bytes_out;
    RETURN NULL;
END
$$;

-- The hash before the newest, which the record at the head names: so one statement moves the head.
ALTER TABLE audit_heads ADD COLUMN previous_hash bytea;

-- Locks the tenant's head until commit: concurrent writers queue up and cannot fork the chain.
CREATE OR REPLACE FUNCTION audit_chain() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF (NEW.body::jsonb ->> 'tenant') IS DISTINCT FROM NEW.tenant_id::text THEN
        RAISE EXCEPTION 'audit body names another tenant' USING ERRCODE = 'check_violation';
    END IF;
    LOOP
        UPDATE audit_heads h
        SET seq = h.seq + 1, previous_hash = h.hash,
            hash = sha256(h.hash || int8send(h.seq + 1) || convert_to(NEW.body, 'UTF8'))
        WHERE h.tenant_id = NEW.tenant_id
        RETURNING h.seq, h.previous_hash, h.hash INTO NEW.seq, NEW.previous_hash, NEW.hash;
        EXIT WHEN FOUND;
        INSERT INTO audit_heads (tenant_id, seq, hash)
        VALUES (NEW.tenant_id, 0, decode(repeat('00', 32), 'hex')) ON CONFLICT DO NOTHING;
    END LOOP;
    RETURN NEW;
END
$$;

-- As in 0010, in one statement where a queue is known already.
CREATE OR REPLACE FUNCTION queue_moves() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    tenant uuid := CASE WHEN TG_OP = 'DELETE' THEN OLD.tenant_id ELSE NEW.tenant_id END;
    before text := CASE WHEN TG_OP = 'INSERT' THEN '' ELSE OLD.state END;
    after text := CASE WHEN TG_OP = 'DELETE' THEN '' ELSE NEW.state END;
    waits integer := (after = 'queued')::integer - (before = 'queued')::integer;
    is_active boolean := after IN ('starting', 'running');
    was_active boolean := before IN ('starting', 'running');
    begins integer := is_active::integer - was_active::integer;
    charge double precision := 0;
BEGIN
    IF begins > 0 THEN
        charge := 0.1;
    ELSIF begins < 0 THEN
        charge := COALESCE(GREATEST(EXTRACT(EPOCH FROM clock_timestamp() - OLD.claimed_at), 0), 0);
    END IF;
    LOOP
        UPDATE queues q
        SET waiting = q.waiting + waits,
            active = q.active + begins,
            load = (q.active + begins) / w.share,
            served = CASE WHEN q.waiting = 0 AND waits > 0 THEN GREATEST(q.served, c.served)
                     ELSE q.served END + charge / w.share
        FROM queue_clock c,
             (SELECT COALESCE((SELECT t.weight FROM tenant_quotas t WHERE t.tenant_id = tenant), 1)
                     AS share) w
        WHERE q.tenant_id = tenant;
        EXIT WHEN FOUND OR TG_OP <> 'INSERT';
        INSERT INTO queues (tenant_id) VALUES (tenant) ON CONFLICT DO NOTHING;
    END LOOP;
    RETURN NULL;
END
$$;

-- One that was starting and runs moves nothing.
DROP TRIGGER queue_moves ON executions;
CREATE CONSTRAINT TRIGGER queue_moves AFTER UPDATE ON executions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state
          AND NOT (OLD.state = 'starting' AND NEW.state = 'running'))
    EXECUTE FUNCTION queue_moves();

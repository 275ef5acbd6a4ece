-- Each process of a sandbox is a record of it: the few of its own life must be found among millions.
CREATE INDEX audit_events_lives ON audit_events (tenant_id, resource_id, seq)
WHERE (action IN ('sandbox:kill', 'sandbox:pause', 'sandbox:resume', 'sandbox:start'));

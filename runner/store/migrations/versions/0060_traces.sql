-- The worker continues the trace of the request that submitted an execution. Redis could forge it; this cannot.

ALTER TABLE executions
    ADD COLUMN traceparent text
        CHECK (traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$');
COMMENT ON COLUMN executions.traceparent IS
    'Place in a trace of the request that submitted it (W3C Trace Context).';

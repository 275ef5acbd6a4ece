-- A name that a program chose, and that masking may have changed, is no key: two may read the same,
-- and one may be longer than an index takes. The object's key is an id of ours.
ALTER TABLE artifacts
    DROP CONSTRAINT artifacts_pkey,
    ADD PRIMARY KEY (tenant_id, execution_id, object_key);

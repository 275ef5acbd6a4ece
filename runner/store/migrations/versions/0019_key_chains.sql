-- What a key made, and whose place it took, is found without reading every key of the tenant.
CREATE INDEX api_keys_maker ON api_keys (tenant_id, created_by);
CREATE INDEX api_keys_successor ON api_keys (tenant_id, replaced_by)
WHERE replaced_by IS NOT NULL;

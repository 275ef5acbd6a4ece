ALTER TABLE executions ADD COLUMN artifacts text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN executions.artifacts IS 'Patterns of the files to keep; none: all of its own.';

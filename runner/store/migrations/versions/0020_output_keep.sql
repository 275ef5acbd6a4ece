-- Of what is stored already, only the beginning of long output was kept.
ALTER TABLE executions
    ADD COLUMN output_keep text NOT NULL DEFAULT 'head'
        CHECK (output_keep IN ('head', 'head_and_tail'));

-- A template may wait for its steps: E2B's clients ask for an id first, bring files, and send them last.

ALTER TABLE templates DROP CONSTRAINT templates_state_check;
ALTER TABLE templates ADD CONSTRAINT templates_state_check
    CHECK (state IN ('waiting', 'building', 'ready', 'failed'));
ALTER TABLE templates DROP CONSTRAINT templates_ended;
ALTER TABLE templates ADD CONSTRAINT templates_ended
    CHECK ((state IN ('waiting', 'building')) = (ended_at IS NULL));
GRANT UPDATE (due_at, base_image, base_template, env, steps) ON templates TO runner_api;

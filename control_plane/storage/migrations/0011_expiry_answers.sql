-- migrate:up
-- What a question of this run is answered with when nobody answers it in time.
ALTER TABLE agent_runs ADD COLUMN expiry_answer text;
-- Older replicas write neither the word nor the answer. No row has the word yet: nothing needs to be looked at.
ALTER TABLE agent_runs ADD CONSTRAINT who_answers_says_what
    CHECK ((on_expiry = 'answer') = (expiry_answer IS NOT NULL)) NOT VALID;

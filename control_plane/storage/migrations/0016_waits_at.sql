-- migrate:up
-- The executor a run waits for that goes on with files which that one alone has, and which was full when it last asked. Runs behind
-- it in the line leave a slot there to it.
ALTER TABLE run_heads ADD COLUMN waits_at text;
CREATE INDEX run_heads_waiting_at ON run_heads (run_id) WHERE waits_at IS NOT NULL AND claim_after IS NOT NULL;

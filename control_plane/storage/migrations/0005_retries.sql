-- migrate:up
-- What a run allows, and what it has behind it: further attempts are decided in the transaction that writes a failure.
ALTER TABLE agent_runs
    ADD COLUMN max_attempts smallint CHECK (max_attempts BETWEEN 1 AND 10),   -- NULL: as the class of the failure has it
    ADD COLUMN retry_after_side_effects boolean NOT NULL DEFAULT false;
ALTER TABLE run_heads
    ADD COLUMN failures smallint NOT NULL DEFAULT 0,      -- attempts that failed and were followed by another
    ADD COLUMN crashes smallint NOT NULL DEFAULT 0,       -- those of them that broke
    ADD COLUMN acted boolean NOT NULL DEFAULT false,      -- one of its attempts started a tool or asked a person
    ADD CONSTRAINT a_crash_is_a_failure CHECK (crashes <= failures);

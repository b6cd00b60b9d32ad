-- migrate:up
-- An attempt that never began says nothing of its run: it is counted beside those that did, and stands against no bound of theirs.
ALTER TABLE run_heads
    ADD COLUMN unbegun smallint NOT NULL DEFAULT 0,
    ADD CONSTRAINT what_never_began_broke_nothing CHECK (crashes + unbegun <= failures);

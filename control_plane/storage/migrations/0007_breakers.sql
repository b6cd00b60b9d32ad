-- migrate:up
-- Whose credentials a run uses on which provider, and whether the model still takes them. Few rows: only where something failed.
CREATE TABLE breakers (
    lender text NOT NULL,             -- the app that lends the credentials; '' for an operator's runs
    provider text NOT NULL,
    error_code text NOT NULL,
    failures int NOT NULL,
    since timestamptz NOT NULL,
    opened_at timestamptz,            -- NULL: it counts
    try_at timestamptz,
    trying text,                      -- the run that tries for all others
    rests int NOT NULL DEFAULT 0,
    PRIMARY KEY (lender, provider),
    CONSTRAINT what_is_open_is_tried CHECK ((opened_at IS NULL) = (try_at IS NULL))
);
ALTER TABLE agent_runs ADD COLUMN lender text NOT NULL DEFAULT '';
-- Kept back by a breaker: it has been told so, and is let go when the breaker closes.
ALTER TABLE run_heads ADD COLUMN held boolean NOT NULL DEFAULT false;
CREATE INDEX run_heads_held ON run_heads (run_id) WHERE held;

-- migrate:up
-- A run that ends the ones of its session before it; whoever created it, or the sweeper, asks them to stop.
ALTER TABLE agent_runs
    ADD COLUMN interrupts boolean NOT NULL DEFAULT false,
    ADD COLUMN stop_detail text;      -- what its ending says of a stop, beside the reason
CREATE INDEX agent_runs_interrupting ON agent_runs (session_id) WHERE interrupts AND status = 'queued';

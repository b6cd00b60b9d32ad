-- migrate:up
-- What is kept of finished runs. One row a run, written by the sweep when it first sees the run ended; readers learn from it what is
-- gone: it says so in one commit, before the first row is deleted.
CREATE TABLE kept_runs (
    run_id text PRIMARY KEY,
    app_id text NOT NULL,             -- '' for an operator's runs
    workspace_key text NOT NULL,
    finished_at timestamptz NOT NULL,
    output text NOT NULL DEFAULT 'kept' CHECK (output IN ('kept', 'going', 'gone')),
    events text NOT NULL DEFAULT 'kept' CHECK (events IN ('kept', 'going', 'gone')),
    output_bytes bigint NOT NULL,     -- what is left of them
    event_bytes bigint NOT NULL,
    events_to bigint NOT NULL DEFAULT 0,   -- events up to this cursor are gone
    events_gone_at timestamptz,
    CONSTRAINT output_goes_first CHECK (events = 'kept' OR output = 'gone'),
    CONSTRAINT what_is_gone_has_an_end CHECK ((events = 'kept') = (events_gone_at IS NULL))
);
CREATE INDEX kept_runs_by_end ON kept_runs (app_id, finished_at);
CREATE INDEX kept_runs_with_output ON kept_runs (app_id, finished_at) WHERE output = 'kept';
CREATE INDEX kept_runs_with_events ON kept_runs (app_id, finished_at) WHERE events = 'kept' AND output = 'gone';
CREATE INDEX kept_runs_going ON kept_runs (run_id) WHERE output = 'going' OR events = 'going';

-- How much a stream held whose bytes are gone.
CREATE TABLE gone_output (
    run_id text NOT NULL,
    attempt int NOT NULL,
    stream text NOT NULL,
    total_bytes bigint NOT NULL,
    PRIMARY KEY (run_id, attempt, stream)
);

-- Workspaces of deleted runs: told to their executors until each has said that nothing is left of them there.
-- An executor_id of '' is the fleet: any of its executors may delete the snapshots.
CREATE TABLE left_workspaces (
    workspace_key text NOT NULL,
    executor_id text NOT NULL,
    run_id text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    tell_after timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_key, executor_id, run_id)
);
CREATE INDEX left_workspaces_to_tell ON left_workspaces (tell_after);

-- Finished, and not seen by the sweep yet. The index costs nothing before a run's end.
ALTER TABLE agent_runs ADD COLUMN weighed boolean NOT NULL DEFAULT false;
CREATE INDEX agent_runs_unweighed ON agent_runs (finished_at) WHERE finished_at IS NOT NULL AND NOT weighed;
-- The foreign key looks for the keys of a run that goes.
CREATE INDEX idempotency_keys_by_run ON idempotency_keys (run_id);

ALTER TABLE apps ADD COLUMN retention json;

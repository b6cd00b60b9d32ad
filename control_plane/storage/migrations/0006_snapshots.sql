-- migrate:up
-- The newest snapshot of each workspace: what an executor that does not have its files goes on from.
CREATE TABLE workspace_snapshots (
    workspace_key text PRIMARY KEY,
    generation bigint NOT NULL DEFAULT 1,     -- counts the snapshots of this workspace
    sha256 text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    bytes bigint NOT NULL,
    path text NOT NULL,                       -- where the workspace stands, on every executor
    executor_id text NOT NULL,                -- who took it
    run_id text NOT NULL,
    attempt int NOT NULL,
    executor_cursor bigint NOT NULL,          -- the snapshot holds everything before this frame of the attempt,
    cursor bigint NOT NULL,                   -- which is everything up to this event of the run
    engine_session text,
    taken_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX run_requests_by_workspace ON run_requests (workspace_key);

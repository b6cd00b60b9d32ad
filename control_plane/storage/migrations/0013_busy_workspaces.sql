-- migrate:up
-- One run at a time works in a workspace. The key is the request's and as little changed; it stands here too because one index
-- must hold it beside the status. Only of runs that were not over when this came: nobody waits for the others.
ALTER TABLE agent_runs ADD COLUMN workspace_key text;
UPDATE agent_runs AS run SET workspace_key = request.workspace_key
FROM run_requests AS request
WHERE request.run_id = run.id AND run.status IN ('queued', 'running', 'waiting_user', 'stopping');
CREATE INDEX agent_runs_living_workspace ON agent_runs (workspace_key, created_at, id)
    WHERE workspace_key IS NOT NULL AND status IN ('queued', 'running', 'waiting_user', 'stopping');
DROP INDEX agent_runs_living_session;

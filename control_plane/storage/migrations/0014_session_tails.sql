-- migrate:up
-- Where an app's session stands is asked at every start in it, however long it has become. '': an operator's.
CREATE INDEX agent_runs_session_by_creation ON agent_runs (session_id, coalesce(app_id, ''), created_at DESC)
    WHERE session_id IS NOT NULL;

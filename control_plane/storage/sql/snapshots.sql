-- Workspaces, as far as Postgres knows them: who worked in one last, and the newest snapshot of it.

-- name: keep_snapshot
-- In the transaction that writes the attempt's events: the newest one replaces the one before.
-- $1 run, $2 attempt, $3 the executor's cursor, $4 the run's, $5 to $8 what was taken.
INSERT INTO workspace_snapshots
    (workspace_key, executor_id, run_id, attempt, executor_cursor, cursor, sha256, bytes, path, engine_session)
SELECT request.workspace_key, attempt.executor_id, attempt.run_id, attempt.attempt, $3, $4, $5, $6, $7, $8
FROM attempts AS attempt
JOIN run_requests AS request ON request.run_id = attempt.run_id
WHERE attempt.run_id = $1 AND attempt.attempt = $2
ON CONFLICT (workspace_key) DO UPDATE SET
    generation = workspace_snapshots.generation + 1, executor_id = excluded.executor_id, run_id = excluded.run_id,
    attempt = excluded.attempt, executor_cursor = excluded.executor_cursor, cursor = excluded.cursor, sha256 = excluded.sha256,
    bytes = excluded.bytes, path = excluded.path, engine_session = excluded.engine_session, taken_at = now();

-- name: newest_attempts
-- Who was to work in a workspace ($1) before this attempt ($2, $3), the last one first. has_worked: it told of some work; $4: the
-- kinds of events that tell of none. is_own: nobody but this run ever did.
SELECT attempt.run_id, attempt.attempt, attempt.executor_id,
       EXISTS (
           SELECT FROM run_events AS event
           WHERE event.run_id = attempt.run_id AND event.attempt = attempt.attempt AND event.kind <> ALL ($4::text[]))
       OR attempt.started_at IS NOT NULL AND EXISTS (  -- its events are no longer kept
           SELECT FROM kept_runs AS kept WHERE kept.run_id = attempt.run_id AND kept.events <> 'kept') AS has_worked,
       NOT EXISTS (
           SELECT FROM run_requests AS other JOIN attempts AS theirs ON theirs.run_id = other.run_id
           WHERE other.workspace_key = $1 AND other.run_id <> $2) AS is_own
FROM run_requests AS request
JOIN attempts AS attempt ON attempt.run_id = request.run_id
WHERE request.workspace_key = $1 AND NOT (attempt.run_id = $2 AND attempt.attempt >= $3)
ORDER BY attempt.created_at DESC, attempt.attempt DESC
LIMIT 20;

-- name: snapshot
-- The newest of a workspace ($1). knows_session: the engine session $2 had begun before it was taken.
SELECT kept.sha256, kept.bytes, kept.path, kept.executor_id, kept.run_id, kept.attempt, kept.cursor, kept.engine_session,
       (SELECT run.provider FROM agent_runs AS run WHERE run.id = kept.run_id) AS provider,
       EXISTS (
           SELECT FROM run_requests AS request
           JOIN attempts AS attempt ON attempt.run_id = request.run_id
           WHERE request.workspace_key = $1 AND attempt.engine_session = $2 AND attempt.created_at <= kept.taken_at
       ) AS knows_session
FROM workspace_snapshots AS kept
WHERE kept.workspace_key = $1;

-- name: lost_from
-- The first event that tells of work which the snapshot ($4 its run, $5 its attempt, $6 its cursor) does not hold; without a
-- snapshot: the first of all. $7: kinds that tell of none. Else as newest_attempts. Of an attempt whose events are no longer kept:
-- the last of those, which is where readers find the gap.
SELECT attempt.run_id, told.cursor
FROM run_requests AS request
JOIN attempts AS attempt ON attempt.run_id = request.run_id
CROSS JOIN LATERAL (
    SELECT event.cursor FROM run_events AS event
    WHERE event.run_id = attempt.run_id AND event.attempt = attempt.attempt AND event.kind <> ALL ($7::text[])
      AND event.cursor > CASE WHEN attempt.run_id = $4 AND attempt.attempt = $5 THEN $6::bigint ELSE 0 END
    UNION ALL
    SELECT kept.events_to FROM kept_runs AS kept
    WHERE kept.run_id = attempt.run_id AND kept.events <> 'kept' AND attempt.started_at IS NOT NULL
      AND (attempt.run_id, attempt.attempt) IS DISTINCT FROM ($4, $5)
    ORDER BY cursor LIMIT 1) AS told
WHERE request.workspace_key = $1 AND NOT (attempt.run_id = $2 AND attempt.attempt >= $3)
  AND ($4::text IS NULL OR attempt.created_at >= (
      SELECT coalesce(min(taken.created_at), '-infinity') FROM attempts AS taken WHERE taken.run_id = $4 AND taken.attempt = $5))
ORDER BY attempt.created_at, attempt.attempt
LIMIT 1;

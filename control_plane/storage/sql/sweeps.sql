-- What the sweepers look for: runs whose time is up, and runs that were to stop and have not.

-- name: overdue
-- Runs whose executor should have ended them by now: the sweeper's turn comes some seconds later than the executor's.
-- And runs that have waited for an executor for longer than $2 seconds, in the queue, since they lost one, or since a person
-- answered all that a parked one had asked: nobody may ever be able to run them. Each with what it waited for (NULL: it worked), and
-- as it stands.
WITH late AS ((SELECT id, NULL AS waited_for FROM agent_runs
 WHERE status = 'running' AND active_since + make_interval(secs => active_ms_left / 1000.0 + $1::float8) < now()
   AND stop_requested_at IS NULL
 LIMIT 100)
UNION ALL
(SELECT id, CASE WHEN EXISTS (
     SELECT FROM agent_runs AS earlier
     WHERE earlier.workspace_key = late.workspace_key AND earlier.status IN ('queued', 'running', 'waiting_user', 'stopping')
       AND (earlier.created_at, earlier.id) < (late.created_at, late.id)) THEN 'an earlier run in its workspace' ELSE 'an executor' END
 FROM agent_runs AS late
 WHERE status = 'queued' AND driven_by = 'runyard' AND created_at + make_interval(secs => $2::float8) < now()
   AND stop_requested_at IS NULL
 LIMIT 100)
UNION ALL
(SELECT run.id, 'an executor' FROM agent_runs AS run
 JOIN run_heads AS head ON head.run_id = run.id
 JOIN attempts AS attempt ON attempt.run_id = run.id AND attempt.attempt = head.attempt
 WHERE run.status = 'running' AND run.active_since IS NULL AND attempt.ended_at + make_interval(secs => $2::float8) < now()
   AND run.stop_requested_at IS NULL
 LIMIT 100)
UNION ALL
(SELECT run.id, 'an executor' FROM agent_runs AS run
 JOIN run_heads AS head ON head.run_id = run.id
 JOIN attempts AS attempt ON attempt.run_id = run.id AND attempt.attempt = head.attempt
 CROSS JOIN LATERAL (
     SELECT max(answered_at) AS answered_at, bool_or(status = 'pending') AS is_open
     FROM interactions WHERE run_id = run.id AND status IN ('pending', 'answered')) AS asked
 WHERE run.status = 'waiting_user' AND attempt.ended_at IS NOT NULL AND run.stop_requested_at IS NULL
   AND NOT asked.is_open AND asked.answered_at + make_interval(secs => $2::float8) < now()
 LIMIT 100))
SELECT late.id, late.waited_for, run.status::text AS status, head.attempt
FROM late JOIN agent_runs AS run ON run.id = late.id JOIN run_heads AS head ON head.run_id = late.id;

-- name: stuck
-- Runs that were asked to stop more than $1 seconds ago, with the attempt that has not ended.
SELECT run.id, head.attempt, attempt.executor_id
FROM agent_runs AS run
JOIN run_heads AS head ON head.run_id = run.id
LEFT JOIN attempts AS attempt ON attempt.run_id = head.run_id AND attempt.attempt = head.attempt AND attempt.ended_at IS NULL
WHERE run.status = 'stopping' AND run.stop_requested_at + make_interval(secs => $1::float8) < now()
ORDER BY run.stop_requested_at
LIMIT 100;

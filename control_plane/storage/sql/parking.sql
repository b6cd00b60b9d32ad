-- That a run is to be parked: a wish that stands in its attempt, so that whoever drives it goes on with it.

-- name: waiting
-- Runs that may have waited for longer than $1 seconds; whether they have is read again under the lock.
SELECT attempt.run_id
FROM attempts AS attempt
JOIN agent_runs AS run ON run.id = attempt.run_id
WHERE attempt.ended_at IS NULL AND attempt.engine_session IS NOT NULL AND attempt.parking IS NULL
  AND run.status = 'waiting_user' AND run.stop_requested_at IS NULL
  AND EXISTS (
      SELECT FROM interactions AS asked
      WHERE asked.run_id = run.id AND asked.status = 'pending' AND asked.created_at < now() - make_interval(secs => $1::float8))
LIMIT 100;

-- name: lock_heads
-- As every writer does. One that is written at this moment is left to the next sweep.
SELECT run_id FROM run_heads WHERE run_id = ANY ($1::text[]) ORDER BY run_id FOR UPDATE SKIP LOCKED;

-- name: ask
-- $1 runs whose heads are locked, $2 seconds. Nobody is asked something newer, and no reply is on its way.
UPDATE attempts AS attempt SET parking = 'asked'
FROM run_heads AS head
JOIN agent_runs AS run ON run.id = head.run_id
WHERE head.run_id = ANY ($1::text[]) AND attempt.run_id = head.run_id AND attempt.attempt = head.attempt
  AND attempt.ended_at IS NULL AND attempt.engine_session IS NOT NULL AND attempt.parking IS NULL
  AND run.status = 'waiting_user' AND run.stop_requested_at IS NULL
  AND EXISTS (SELECT FROM interactions AS asked WHERE asked.run_id = run.id AND asked.status = 'pending')
  AND NOT EXISTS (
      SELECT FROM interactions AS asked
      WHERE asked.run_id = run.id
        AND (asked.status = 'answered'
             OR asked.status = 'pending' AND asked.created_at >= now() - make_interval(secs => $2::float8)))
RETURNING attempt.run_id;

-- name: settle
-- The executor's no to this very attempt ($1, $2): for now (NULL), or for good.
UPDATE attempts SET parking = $3 WHERE run_id = $1 AND attempt = $2 AND parking = 'asked';

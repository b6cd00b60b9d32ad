-- name: lock_head
-- A reply, like every writer of a run, takes the run's head first.
SELECT head.run_id FROM run_heads AS head WHERE head.run_id = $1 FOR UPDATE;

-- name: one
SELECT run_id, question_id, attempt, request, status, answer, answered_by, answered_at, created_at, expires_at, on_expiry
FROM interactions WHERE run_id = $1 AND question_id = $2;

-- name: answer
-- Compare-and-set: exactly one reply wins.
UPDATE interactions SET status = 'answered', answer = $3::text::json, answered_by = $4, answered_at = now()
WHERE run_id = $1 AND question_id = $2 AND status = 'pending' AND ($5 OR expires_at IS NULL OR expires_at > now())
RETURNING question_id;

-- name: wake_parked
-- A parked run has nobody who drives it: the reply makes it claimable.
UPDATE run_heads SET claim_after = now()
WHERE run_id = $1 AND claim_after IS NULL
  AND EXISTS (SELECT FROM agent_runs WHERE id = $1 AND status = 'waiting_user')
RETURNING run_id;


-- name: answered
-- Accepted replies that were not confirmed yet, oldest first.
SELECT question_id, attempt, request, answer, answered_by
FROM interactions WHERE run_id = $1 AND status = 'answered' ORDER BY answered_at, question_id;

-- name: carried
-- Replies that travel with the start of attempt $2, oldest first. Which they are was written with the attempt: a start that is
-- repeated says the same, and what was answered since did not travel with it.
SELECT question_id, attempt, request, answer, answered_by
FROM interactions WHERE run_id = $1 AND carried_by = $2 ORDER BY answered_at, question_id;

-- name: heard
-- Answers that attempts before $2 have taken. A decision was for the engine that asked, and for what it asked: another one asks
-- again, unless it was told so in words.
SELECT coalesce(carried_by, attempt) AS attempt, answered_at, request, answer
FROM interactions
WHERE run_id = $1 AND status = 'delivered' AND coalesce(carried_by, attempt) < $2
  AND (carried_by IS NOT NULL OR answer ->> 'decision' IS NULL)
ORDER BY answered_at, question_id;

-- name: open_ids
SELECT question_id FROM interactions WHERE run_id = $1 AND status = 'pending' ORDER BY created_at, question_id;

-- name: expired
SELECT run_id, question_id, on_expiry FROM interactions
WHERE status = 'pending' AND expires_at < now() ORDER BY expires_at LIMIT 100;

-- name: list
-- $1 app (NULL: all), $2 status (NULL: any), $3 run (NULL: any), $4/$5/$6 the page before, $7 limit, $8 bytes: as in the list of runs.
SELECT *
FROM (
    SELECT page.*, count(*) OVER () AS found, coalesce(sum(octet_length(request::text) + coalesce(octet_length(answer::text), 0)) OVER (
        ORDER BY created_at, run_id, question_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes_before
    FROM (
        SELECT interactions.run_id, question_id, attempt, request, interactions.status, answer, answered_by, answered_at,
               interactions.created_at, expires_at, interactions.on_expiry
        FROM interactions JOIN agent_runs AS run ON run.id = interactions.run_id
        WHERE ($1::text IS NULL OR run.app_id = $1)
          AND ($2::text IS NULL OR interactions.status = $2)
          AND ($3::text IS NULL OR interactions.run_id = $3)
          AND ($4::timestamptz IS NULL OR (interactions.created_at, interactions.run_id, question_id) > ($4, $5, $6))
        ORDER BY interactions.created_at, interactions.run_id, question_id
        LIMIT $7
    ) AS page
) AS measured
WHERE bytes_before < $8
ORDER BY created_at, run_id, question_id;

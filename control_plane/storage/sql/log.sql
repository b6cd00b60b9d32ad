-- The event log and everything that moves with it, for all runs of one window at once.

-- name: lock_heads
-- The first step of every writer: the heads of all runs in this window, in id order, as far as their lease is still ours
-- (a writer without a lease gives NULL and takes the row as it is). A run that does not come back is no longer ours.
-- Statuses are read by the next statement: this one sees the snapshot it began with, not what it waited for.
-- $1 run ids, $2 lease tokens (same order).
SELECT head.run_id
FROM unnest($1::text[], $2::uuid[]) AS held (run_id, lease_token)
JOIN run_heads AS head ON head.run_id = held.run_id AND (held.lease_token IS NULL OR head.lease_token = held.lease_token)
ORDER BY head.run_id
FOR UPDATE OF head;

-- name: read_locked
SELECT head.run_id, head.last_cursor, head.executor_cursor, head.attempt, head.lease_until > now() AS has_lease,
       run.status::text AS status, run.stop_reason, run.stop_detail, run.interaction_ms, run.on_expiry, run.expiry_answer,
       attempt.run_id IS NOT NULL AS attempt_living, attempt.engine_session IS NOT NULL AS has_session, clock_timestamp() AS now,
       run.max_attempts, run.retry_after_side_effects, run.lender, run.provider,
       breaker.lender IS NOT NULL AS is_watched, coalesce(breaker.trying = run.id, false) AS is_trying, head.held,
       head.failures, head.crashes, head.unbegun, head.acted,
       (run.active_ms_left - coalesce(extract(epoch FROM now() - run.active_since) * 1000, 0))::bigint AS active_ms_left
FROM run_heads AS head
JOIN agent_runs AS run ON run.id = head.run_id
LEFT JOIN attempts AS attempt ON attempt.run_id = head.run_id AND attempt.attempt = head.attempt AND attempt.ended_at IS NULL
LEFT JOIN breakers AS breaker ON breaker.lender = run.lender AND breaker.provider = run.provider
WHERE head.run_id = ANY ($1::text[]);

-- name: open_questions
SELECT run_id, question_id, answered_by, status = 'answered' AS is_answered
FROM interactions
WHERE run_id = ANY ($1::text[]) AND status IN ('pending', 'answered');

-- name: append_raw
INSERT INTO raw_output (run_id, attempt, stream, byte_from, bytes)
SELECT run_id, attempt, stream, byte_from, decode(base64, 'base64')
FROM unnest($1::text[], $2::int[], $3::text[], $4::bigint[], $5::text[]) AS new (run_id, attempt, stream, byte_from, base64);

-- name: write_window
-- The frequent rows of all runs of a window: one statement, because a window is as cheap as its round trips are few.
-- $1 to $7 events; $8 to $11 heads, let_go: the run is over or parked, its lease is dropped and nobody is to drive it.
WITH appended AS (
    INSERT INTO run_events (run_id, cursor, attempt, kind, at, data, raw_ref, fcmp_seq)
    SELECT *, 0
    FROM unnest($1::text[], $2::bigint[], $3::int[], $4::text[], $5::timestamptz[], $6::text[], $7::text[])
)
UPDATE run_heads AS head
SET last_cursor = new.last_cursor,
    executor_cursor = new.executor_cursor,
    lease_token = CASE WHEN new.let_go THEN NULL ELSE head.lease_token END,
    lease_until = CASE WHEN new.let_go THEN NULL ELSE head.lease_until END,
    claim_after = CASE WHEN new.let_go THEN NULL ELSE head.claim_after END
FROM unnest($8::text[], $9::bigint[], $10::bigint[], $11::boolean[]) AS new (run_id, last_cursor, executor_cursor, let_go)
WHERE head.run_id = new.run_id;

-- name: move_runs
-- Active time is settled whenever a run stops or starts being ``running``; it stays unknown (NULL) until an attempt has told its limit.
UPDATE agent_runs AS run
SET status = new.status::run_status,
    started_at = CASE WHEN new.status IN ('running', 'waiting_user', 'success')
                      THEN coalesce(run.started_at, now()) ELSE run.started_at END,
    active_ms_left = CASE WHEN run.active_since IS NULL THEN run.active_ms_left
                          ELSE run.active_ms_left
                               - least(extract(epoch FROM now() - run.active_since) * 1000, run.active_ms_left) END,
    active_since = CASE WHEN new.status = 'running' THEN now() END,
    finished_at = CASE WHEN new.finished THEN now() END,
    duration_ms = CASE WHEN new.finished THEN extract(epoch FROM now() - coalesce(run.started_at, run.created_at)) * 1000 END,
    error_code = new.error_code,
    error_message = new.error_message,
    retryable = new.retryable,
    exit_code = new.exit_code
FROM unnest($1::text[], $2::text[], $3::boolean[], $4::text[], $5::text[], $6::boolean[], $7::int[])
     AS new (run_id, status, finished, error_code, error_message, retryable, exit_code)
WHERE run.id = new.run_id;

-- name: ask_to_stop
UPDATE agent_runs SET stop_requested_at = coalesce(stop_requested_at, now()), stop_reason = coalesce(stop_reason, $2),
    stop_detail = CASE WHEN stop_reason IS NULL THEN $3 ELSE stop_detail END
WHERE id = $1;

-- name: begin_active_time
-- An engine works from here on. Only the first attempt says how long the run may; later ones go on with what is left.
UPDATE agent_runs SET active_ms_left = coalesce(active_ms_left, $2),
                      active_since = CASE WHEN status = 'running' THEN coalesce(active_since, now()) END
WHERE id = $1;

-- name: rest_active_time
-- No engine works: what passes until the next attempt has begun is no active time. An attempt that was lost before it told its
-- limit leaves it unknown (NULL), as it was.
UPDATE agent_runs SET active_ms_left = active_ms_left - least(extract(epoch FROM now() - active_since) * 1000, active_ms_left),
                      active_since = NULL
WHERE id = $1 AND active_since IS NOT NULL;

-- name: has_acted
UPDATE run_heads SET acted = true WHERE run_id = $1;

-- name: try_again
-- Another attempt follows. With a wait ($5 milliseconds) the lease goes now and whoever comes first drives it then; without one
-- its driver goes on.
UPDATE run_heads
SET failures = $2, crashes = $3, unbegun = $4,
    lease_token = CASE WHEN $5 = 0 THEN lease_token END,
    lease_until = CASE WHEN $5 = 0 THEN lease_until END,
    claim_after = CASE WHEN $5 = 0 THEN claim_after ELSE now() + make_interval(secs => $5 / 1000.0) END
WHERE run_id = $1;

-- name: hold
-- Nobody is to drive it for $2 seconds; 0: it waits for nothing any more.
UPDATE run_heads
SET lease_token = NULL, lease_until = NULL, held = $2 > 0, waits_at = NULL, claim_after = now() + make_interval(secs => $2::float8)
WHERE run_id = $1;

-- name: forget_session
-- Nothing was done in it: the next attempt begins where this one began.
UPDATE attempts SET engine_session = NULL WHERE run_id = $1 AND attempt = $2;

-- name: set_session
UPDATE attempts SET engine_session = $3 WHERE run_id = $1 AND attempt = $2;

-- name: set_started
-- Also of a run that is to stop: its attempt has started all the same.
UPDATE agent_runs SET started_at = coalesce(started_at, now()) WHERE id = $1;

-- name: set_accepted
UPDATE attempts SET started_at = coalesce(started_at, now()) WHERE run_id = $1 AND attempt = $2;

-- name: end_attempt
UPDATE attempts SET ended_at = now(), outcome = $3::text::json WHERE run_id = $1 AND attempt = $2 AND ended_at IS NULL;

-- name: open_question
INSERT INTO interactions (run_id, question_id, attempt, request, expires_at, on_expiry)
VALUES ($1, $2, $3, $4::text::json, $5, $6)
ON CONFLICT (run_id, question_id) DO NOTHING;

-- name: resolve_question
-- An answer that was on its way counts as delivered only when the executor said so.
UPDATE interactions SET status = CASE WHEN $3 = 'delivered' AND answer IS NULL THEN 'withdrawn' ELSE $3 END
WHERE run_id = $1 AND question_id = $2 AND status IN ('pending', 'answered');

-- name: waiting_messages
SELECT run_id, message_id FROM run_messages
WHERE run_id = ANY ($1::text[]) AND status = 'pending' ORDER BY run_id, position;

-- name: settle_message
UPDATE run_messages SET status = $3, settled_at = now(), attempt = CASE WHEN $3 = 'delivered' THEN $4::int END
WHERE run_id = $1 AND message_id = $2 AND status = 'pending';

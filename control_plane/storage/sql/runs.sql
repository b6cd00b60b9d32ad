-- The run aggregate: agent_runs, run_heads, run_requests, attempts, idempotency_keys.

-- name: keep_idempotency_key
-- Taken before anything else of a run is written: a twin waits here for our commit and then finds the key taken.
INSERT INTO idempotency_keys (app_id, key, body_sha256, run_id) VALUES ($1, $2, $3, $4)
ON CONFLICT (app_id, key) DO NOTHING
RETURNING run_id;

-- name: idempotent_run
SELECT run_id, body_sha256 FROM idempotency_keys WHERE app_id = $1 AND key = $2;

-- name: forget_idempotency_keys
DELETE FROM idempotency_keys WHERE created_at < now() - make_interval(secs => $1::float8);

-- name: lock_session
-- Two first runs of a session must not decide differently where it works.
SELECT pg_advisory_xact_lock(hashtextextended($1, 7204115));

-- name: session_workspace
-- All runs of a session work in one workspace; read under the session's lock. (Before 0013 one could leave it: the last one counts.)
SELECT request.workspace_key
FROM agent_runs AS run JOIN run_requests AS request ON request.run_id = run.id
WHERE run.session_id = $1 AND coalesce(run.app_id, '') = coalesce($2, '')
ORDER BY run.created_at DESC
LIMIT 1;

-- name: lock_workspace
-- The runs of a workspace are created one after the other, so that their order by time is the order of their commits:
-- whoever sees a later run sees the earlier ones too. Whoever takes a session's lock as well has it already.
SELECT pg_advisory_xact_lock(hashtextextended($1, 7204118));

-- name: busy_with
-- The living run of a workspace that is to be over first; read under the workspace's lock.
SELECT id, status::text AS status, app_id FROM agent_runs
WHERE workspace_key = $1 AND status IN ('queued', 'running', 'waiting_user', 'stopping')
ORDER BY created_at, id
LIMIT 1;

-- name: living_in_workspace
-- How many runs of a workspace are not over, counted up to $2; read under the workspace's lock.
SELECT count(*) FROM (
    SELECT FROM agent_runs
    WHERE workspace_key = $1 AND status IN ('queued', 'running', 'waiting_user', 'stopping')
    LIMIT $2) AS living;

-- name: interrupted
-- The living runs before one that interrupts ($1; NULL: before any) that nobody has asked to stop yet. An app's run interrupts those
-- of the app only, and waits for others.
SELECT earlier.id, run.id AS by
FROM agent_runs AS run
JOIN agent_runs AS earlier ON earlier.workspace_key = run.workspace_key AND (run.app_id IS NULL OR earlier.app_id = run.app_id)
WHERE run.interrupts AND run.status = 'queued' AND ($1::text IS NULL OR run.id = $1)
  AND earlier.status IN ('queued', 'running', 'waiting_user', 'stopping') AND earlier.stop_requested_at IS NULL
  AND (earlier.created_at, earlier.id) < (run.created_at, run.id)
LIMIT 100;

-- name: create_run
-- All rows of a new run, in one round trip.
-- $1 to $10 the summary, $11 its priority, $12 to $15 the request, $16 the first event's data, $17 and $18 further attempts,
-- $19 whose credentials it uses, $20 whether it interrupts those before it, $21 what a question is answered with that expires.
-- It is later than every living run of its workspace, whose lock is held: clocks may be put back, turns may not.
WITH run AS (
    INSERT INTO agent_runs
        (id, source, source_ref, session_id, metadata, app_id, provider, model, interaction_ms, on_expiry, max_attempts,
         retry_after_side_effects, lender, interrupts, expiry_answer, workspace_key, created_at)
    VALUES ($1, $2, $3, $4, $5::text::jsonb, $6, $7, $8, $9, $10, $17, $18, $19, $20, $21, $12, greatest(clock_timestamp(), (
        SELECT max(created_at) + interval '1 microsecond' FROM agent_runs
        WHERE workspace_key = $12 AND status IN ('queued', 'running', 'waiting_user', 'stopping'))))
    RETURNING id
), head AS (
    INSERT INTO run_heads (run_id, last_cursor, priority, claim_after) SELECT id, 1, $11, now() FROM run
), request AS (
    INSERT INTO run_requests (run_id, workspace_key, resume_session, request, profile)
    SELECT id, $12, $13, $14::text::json, $15::text::json FROM run
)
INSERT INTO run_events (run_id, cursor, attempt, kind, at, data, fcmp_seq)
SELECT id, 1, 0, 'run.status', clock_timestamp(), $16, 0 FROM run;

-- name: queued
SELECT count(*) FROM (SELECT FROM agent_runs WHERE status = 'queued' AND driven_by = 'runyard' LIMIT $1) AS queued;

-- name: claim
-- Runs that need a driver: queued ones, and living ones without one. A workspace's runs take their turns in the order they came;
-- the first one of a workspace that has its name (most are that) need not look.
-- $1 how many, $2 for how many seconds, $3 the runs its caller drives: their leases may have lapsed, but they are not alone;
-- $4 providers that have no room: whatever has to be placed keeps its place in the line, what works or is to end needs none. The line
-- goes by priority, a run rises by one in $5 seconds of waiting, by $6 in all, and among equals the older one is first.
WITH ready AS (
    SELECT head.run_id
    FROM run_heads AS head
    JOIN agent_runs AS run ON run.id = head.run_id
    WHERE head.claim_after <= now()
      AND (head.lease_until IS NULL OR head.lease_until < now())
      AND head.run_id <> ALL ($3::text[])
      AND (run.provider <> ALL ($4::text[]) OR run.status = 'stopping' OR head.attempt > 0 AND EXISTS (
          SELECT FROM attempts AS works
          WHERE works.run_id = head.run_id AND works.attempt = head.attempt AND works.ended_at IS NULL))
      AND (run.status <> 'queued' OR run.workspace_key = run.id OR NOT EXISTS (
          SELECT FROM agent_runs AS earlier
          WHERE earlier.workspace_key = run.workspace_key
            AND earlier.status IN ('queued', 'running', 'waiting_user', 'stopping')
            AND (earlier.created_at, earlier.id) < (run.created_at, run.id)))
    ORDER BY head.priority + least(extract(epoch FROM now() - run.created_at)::float8 / $5::float8, $6::float8) DESC,
             run.created_at, head.run_id
    FOR UPDATE OF head SKIP LOCKED
    LIMIT $1
)
UPDATE run_heads AS head
SET lease_token = gen_random_uuid(), lease_until = now() + make_interval(secs => $2::float8)
FROM ready
WHERE head.run_id = ready.run_id
RETURNING head.run_id, head.lease_token;

-- name: renew
-- All leases of a replica at once, in id order as every writer locks. A lapsed lease that nobody took is still ours.
WITH ours AS (
    SELECT head.run_id
    FROM unnest($1::text[], $2::uuid[]) AS held (run_id, lease_token)
    JOIN run_heads AS head USING (run_id, lease_token)
    ORDER BY head.run_id
    FOR UPDATE OF head
)
UPDATE run_heads AS head SET lease_until = now() + make_interval(secs => $3::float8)
FROM ours WHERE head.run_id = ours.run_id
RETURNING head.run_id;

-- name: let_go
-- Hand a run back: at once ($3 = 0), or not before some seconds have passed. $4 the executor it waits for.
UPDATE run_heads
SET lease_token = NULL, lease_until = NULL, claim_after = now() + make_interval(secs => $3::float8), waits_at = $4
WHERE run_id = $1 AND lease_token = $2;

-- name: hold_lease
-- The first step of a driver's own writes. What else they read is read by the next statement: this one may have waited.
SELECT run_id FROM run_heads WHERE run_id = $1 AND lease_token = $2 FOR UPDATE;

-- name: next_attempt
-- Written before the executor hears of it. No row: the lease is lost, or the run is over or about to be.
WITH held AS (
    UPDATE run_heads AS head SET attempt = head.attempt + 1, executor_cursor = 0, held = false, waits_at = NULL
    FROM agent_runs AS run
    WHERE head.run_id = $1 AND head.lease_token = $2 AND run.id = head.run_id
      AND run.status IN ('queued', 'running', 'waiting_user')
    RETURNING head.run_id, head.attempt
)
INSERT INTO attempts (run_id, attempt, executor_id, executor_instance, executor_url)
SELECT run_id, attempt, $3, $4, $5 FROM held
RETURNING attempt;

-- name: carry_replies
-- A later attempt is told at its start what no engine has confirmed to have heard, and again what travelled with the start of an
-- attempt that told of no work ($3: the kinds of events that tell of none): its engine may never have begun.
UPDATE interactions AS asked SET carried_by = $2
WHERE asked.run_id = $1 AND (asked.status = 'answered' OR asked.status = 'delivered' AND asked.carried_by IS NOT NULL AND NOT EXISTS (
    SELECT FROM run_events AS event
    WHERE event.run_id = asked.run_id AND event.attempt = asked.carried_by AND event.kind <> ALL ($3::text[])));

-- name: carry_messages
-- A later attempt that goes on with an engine session is told at its start what no engine has taken: as with replies. One that
-- starts afresh knows nothing of what an earlier one was told: all of it is handed over again.
WITH session AS (
    SELECT EXISTS (SELECT FROM attempts WHERE run_id = $1 AND engine_session IS NOT NULL) AS goes_on
)
UPDATE run_messages AS message
SET status = 'pending', settled_at = NULL, attempt = NULL, carried_by = CASE WHEN session.goes_on THEN $2::int END
FROM session
WHERE message.run_id = $1 AND (message.status = 'pending' OR message.status = 'delivered' AND (NOT session.goes_on
    OR message.carried_by = message.attempt AND NOT EXISTS (
        SELECT FROM run_events AS event
        WHERE event.run_id = message.run_id AND event.attempt = message.attempt AND event.kind <> ALL ($3::text[]))));

-- name: withdraw_attempt
-- A definite no: nothing runs there, and the same attempt may be placed again.
WITH gone AS (
    DELETE FROM attempts USING run_heads AS head
    WHERE attempts.run_id = $1 AND attempts.attempt = $3 AND attempts.started_at IS NULL
      AND head.run_id = attempts.run_id AND head.lease_token = $2 AND head.attempt = $3
    RETURNING attempts.run_id, attempts.attempt
)
UPDATE run_heads AS head SET attempt = gone.attempt - 1 FROM gone WHERE head.run_id = gone.run_id;

-- name: driven
-- What a driver needs to know of its run. awaited: the executors that runs before it in the line ($2, $3: as in the claim) wait for;
-- one that nobody has claimed for a while, whatever keeps it back, keeps no executor for itself, nor one that has an attempt: a
-- replica from before this was counted may have placed it.
SELECT run.id, run.status::text AS status, run.provider, run.model, run.session_id, run.app_id, run.active_ms_left,
       run.stop_requested_at IS NOT NULL AS stop_requested,
       coalesce(extract(epoch FROM now() - run.stop_requested_at), 0)::float8 AS stopping_seconds,
       head.attempt, head.executor_cursor, head.failures, run.lender, breaker.lender IS NOT NULL AS meets_breaker,
       request.workspace_key, request.resume_session, request.request,
       request.profile::text AS profile,
       attempt.executor_id, attempt.executor_instance, attempt.executor_url, attempt.started_at AS attempt_started_at,
       attempt.ended_at IS NOT NULL AS attempt_ended,
       coalesce(attempt.parking = 'asked' AND attempt.ended_at IS NULL, false) AS is_to_park,
       (SELECT latest.engine_session FROM attempts AS latest
        WHERE latest.run_id = run.id AND latest.engine_session IS NOT NULL
        ORDER BY latest.attempt DESC LIMIT 1) AS engine_session,
       head.waits_at,
       ARRAY(SELECT other.waits_at
             FROM run_heads AS other JOIN agent_runs AS waiting ON waiting.id = other.run_id
             WHERE other.waits_at IS NOT NULL AND other.claim_after IS NOT NULL
               AND (other.claim_after > now() - interval '3 seconds' OR other.lease_until > now())
               AND waiting.status IN ('queued', 'running', 'waiting_user') AND NOT other.held
               AND NOT EXISTS (SELECT FROM attempts AS has
                               WHERE has.run_id = other.run_id AND has.attempt = other.attempt AND has.ended_at IS NULL)
               AND (other.priority + least(extract(epoch FROM now() - waiting.created_at)::float8 / $2::float8, $3::float8),
                    run.created_at, run.id)
                 > (head.priority + least(extract(epoch FROM now() - run.created_at)::float8 / $2::float8, $3::float8),
                    waiting.created_at, waiting.id)) AS awaited
FROM agent_runs AS run
JOIN run_heads AS head ON head.run_id = run.id
JOIN run_requests AS request ON request.run_id = run.id
LEFT JOIN attempts AS attempt ON attempt.run_id = run.id AND attempt.attempt = head.attempt
LEFT JOIN breakers AS breaker
       ON breaker.lender = run.lender AND breaker.provider = run.provider AND breaker.opened_at IS NOT NULL
WHERE run.id = $1;

-- name: intents
-- Which of these runs have something to deliver.
SELECT id AS run_id FROM agent_runs WHERE id = ANY ($1::text[]) AND stop_requested_at IS NOT NULL
UNION
SELECT run_id FROM interactions WHERE run_id = ANY ($1::text[]) AND status = 'answered'
UNION
SELECT run_id FROM run_messages WHERE run_id = ANY ($1::text[]) AND status = 'pending'
UNION
SELECT run_id FROM attempts WHERE run_id = ANY ($1::text[]) AND ended_at IS NULL AND parking = 'asked';

-- name: session_tail
-- Where a session stands: its newest run with an engine session.
WITH tail AS (
    SELECT run.id, latest.engine_session, run.provider
    FROM agent_runs AS run
    CROSS JOIN LATERAL (
        SELECT attempt.engine_session FROM attempts AS attempt
        WHERE attempt.run_id = run.id AND attempt.engine_session IS NOT NULL
        ORDER BY attempt.attempt DESC LIMIT 1) AS latest
    WHERE run.session_id = $1 AND coalesce(run.app_id, '') = coalesce($2, '')
    ORDER BY run.created_at DESC
    LIMIT 1
)
SELECT request.workspace_key, tail.engine_session, tail.provider
FROM tail JOIN run_requests AS request ON request.run_id = tail.id;

-- name: follow
-- The first attempt of a run goes on with the engine session in which what it follows stands now: that was not over when the run was
-- created. A run that names another one stands where a further attempt of that one would begin; one that names an engine session
-- keeps to it; any other stands where its session does, if that is in its workspace. No row: as it is.
UPDATE run_requests AS request SET resume_session = tail.engine_session
FROM agent_runs AS run
JOIN run_requests AS asked ON asked.run_id = run.id
CROSS JOIN LATERAL (
    SELECT coalesce((SELECT attempt.engine_session FROM attempts AS attempt
                     WHERE attempt.run_id = named.run_id AND attempt.engine_session IS NOT NULL
                     ORDER BY attempt.attempt DESC LIMIT 1), named.resume_session) AS engine_session, run.provider
    FROM run_requests AS named
    WHERE named.run_id = asked.request ->> 'resumeRunId'
    UNION ALL
    SELECT newest.engine_session, newest.provider
    FROM (
        SELECT earlier.id, latest.engine_session, earlier.provider
        FROM agent_runs AS earlier
        CROSS JOIN LATERAL (
            SELECT attempt.engine_session FROM attempts AS attempt
            WHERE attempt.run_id = earlier.id AND attempt.engine_session IS NOT NULL
            ORDER BY attempt.attempt DESC LIMIT 1) AS latest
        WHERE earlier.session_id = run.session_id AND coalesce(earlier.app_id, '') = coalesce(run.app_id, '') AND earlier.id <> run.id
        ORDER BY earlier.created_at DESC
        LIMIT 1
    ) AS newest
    JOIN run_requests AS theirs ON theirs.run_id = newest.id AND theirs.workspace_key = asked.workspace_key
    WHERE asked.request ->> 'resumeRunId' IS NULL AND asked.request ->> 'resumeSessionId' IS NULL
) AS tail
WHERE run.id = $1 AND request.run_id = run.id AND tail.provider = run.provider
  AND request.resume_session IS DISTINCT FROM tail.engine_session
RETURNING request.resume_session;

-- name: resumable_run
SELECT run.app_id, run.session_id, run.provider, request.workspace_key,
       (SELECT engine_session FROM attempts WHERE attempts.run_id = run.id AND engine_session IS NOT NULL
        ORDER BY attempt DESC LIMIT 1) AS engine_session
FROM agent_runs AS run
JOIN run_requests AS request ON request.run_id = run.id
WHERE run.id = $1;

-- name: by_engine_session
-- The newest run that left it: of an app ($2; NULL: of any), for others may have gone on with it since.
SELECT run.app_id, run.session_id, run.provider, request.workspace_key, attempt.engine_session
FROM attempts AS attempt
JOIN agent_runs AS run ON run.id = attempt.run_id
JOIN run_requests AS request ON request.run_id = run.id
WHERE attempt.engine_session = $1 AND ($2::text IS NULL OR run.app_id = $2)
ORDER BY run.created_at DESC
LIMIT 1;

-- name: head
SELECT run.status::text AS status, run.app_id, head.last_cursor
FROM agent_runs AS run JOIN run_heads AS head ON head.run_id = run.id
WHERE run.id = $1;

-- name: heads
SELECT run_id, last_cursor FROM run_heads WHERE run_id = ANY ($1::text[]);

-- name: snapshot
-- A queued run's place in the line ($2, $3: as in the claim), and that place times the pace at which its provider's runs began lately:
-- not of one that waits for something else, a breaker or the end of a run in its workspace.
SELECT run.*, run.status::text AS status_text, head.last_cursor, head.attempt, head.lease_token IS NOT NULL AS claimed,
       head.claim_after IS NULL AS resting, attempt.outcome, attempt.ended_at AS attempt_ended_at,
       CASE WHEN head.failures > 0 AND attempt.ended_at IS NOT NULL AND head.lease_token IS NULL AND head.claim_after > now()
            THEN head.claim_after END AS next_attempt_at,
       CASE WHEN run.status = 'queued' THEN line.before + 1 END AS queue_position,
       CASE WHEN run.status = 'queued' AND NOT head.held AND NOT EXISTS (
           SELECT FROM agent_runs AS earlier
           WHERE earlier.workspace_key = run.workspace_key
             AND earlier.status IN ('queued', 'running', 'waiting_user', 'stopping')
             AND (earlier.created_at, earlier.id) < (run.created_at, run.id))
       THEN (line.of_provider + 1) * pace.ms_per_start END AS expected_wait_ms,
       (SELECT latest.engine_session FROM attempts AS latest
        WHERE latest.run_id = run.id AND latest.engine_session IS NOT NULL
        ORDER BY latest.attempt DESC LIMIT 1) AS engine_session
FROM agent_runs AS run
JOIN run_heads AS head ON head.run_id = run.id
LEFT JOIN attempts AS attempt ON attempt.run_id = run.id AND attempt.attempt = head.attempt
CROSS JOIN LATERAL (
    SELECT count(*) AS before, count(*) FILTER (WHERE waiting.provider = run.provider) AS of_provider
    FROM run_heads AS other JOIN agent_runs AS waiting ON waiting.id = other.run_id
    WHERE run.status = 'queued' AND waiting.status = 'queued'
      AND (other.priority + least(extract(epoch FROM now() - waiting.created_at)::float8 / $2::float8, $3::float8),
           run.created_at, run.id)
        > (head.priority + least(extract(epoch FROM now() - run.created_at)::float8 / $2::float8, $3::float8),
           waiting.created_at, waiting.id)
) AS line
CROSS JOIN LATERAL (
    SELECT CASE WHEN count(*) >= 3 THEN extract(epoch FROM now() - min(begun.started_at)) * 1000 / count(*) END AS ms_per_start
    FROM (SELECT lately.started_at FROM agent_runs AS lately
          WHERE run.status = 'queued' AND lately.provider = run.provider AND lately.started_at > now() - interval '15 minutes'
            AND lately.status IN ('running', 'waiting_user', 'stopping', 'success', 'error', 'timeout', 'canceled')
          ORDER BY lately.started_at DESC LIMIT 100) AS begun
) AS pace
WHERE run.id = $1;

-- name: list
-- $1 app (NULL: all), then filters (NULL: any), then the page before (created_at, id), how many at most, and in how many bytes:
-- no row more once the outcomes have passed them. found: how many rows there were without that.
SELECT *
FROM (
    SELECT page.*, count(*) OVER () AS found, coalesce(sum(octet_length(outcome::text)) OVER (
        ORDER BY created_at DESC, id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes_before
    FROM (
        SELECT run.*, run.status::text AS status_text, head.last_cursor, head.attempt, head.lease_token IS NOT NULL AS claimed,
               head.claim_after IS NULL AS resting, attempt.outcome, attempt.ended_at AS attempt_ended_at,
               NULL::timestamptz AS next_attempt_at, NULL::bigint AS queue_position, NULL::numeric AS expected_wait_ms,
               attempt.engine_session
        FROM agent_runs AS run
        JOIN run_heads AS head ON head.run_id = run.id
        LEFT JOIN attempts AS attempt ON attempt.run_id = run.id AND attempt.attempt = head.attempt
        WHERE ($1::text IS NULL OR run.app_id = $1)
          AND ($2::text IS NULL OR run.status = $2::run_status)
          AND ($3::text IS NULL OR run.source = $3)
          AND ($4::text IS NULL OR run.provider = $4)
          AND ($5::text IS NULL OR run.session_id = $5)
          AND ($6::timestamptz IS NULL OR run.created_at >= $6)
          AND ($7::timestamptz IS NULL OR run.created_at < $7)
          AND ($8::timestamptz IS NULL OR (run.created_at, run.id) < ($8, $9))
        ORDER BY run.created_at DESC, run.id DESC
        LIMIT $10
    ) AS page
) AS measured
WHERE bytes_before < $11
ORDER BY created_at DESC, id DESC;

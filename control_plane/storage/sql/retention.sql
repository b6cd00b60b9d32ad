-- What goes of finished runs, in small transactions. What is gone is said (marked) in one commit and deleted in later ones, so that
-- whoever reads meanwhile finds all of it or the word that it is gone, and never a part.

-- name: take_turn
SELECT pg_try_advisory_xact_lock(7204115, 8);

-- name: any_word
SELECT EXISTS (SELECT FROM apps WHERE retention IS NOT NULL);

-- name: weigh
-- Finished runs that the sweep has not seen: what they hold is counted once.
WITH ended AS (
    SELECT id, coalesce(app_id, '') AS app_id, finished_at FROM agent_runs
    WHERE finished_at IS NOT NULL AND NOT weighed
    ORDER BY finished_at LIMIT $1
    FOR UPDATE
), weighed AS (
    UPDATE agent_runs AS run SET weighed = true FROM ended WHERE run.id = ended.id
)
INSERT INTO kept_runs (run_id, app_id, workspace_key, finished_at, output_bytes, event_bytes)
SELECT ended.id, ended.app_id, coalesce(request.workspace_key, ended.id), ended.finished_at,
       coalesce((SELECT sum(octet_length(bytes)) FROM raw_output WHERE run_id = ended.id), 0),
       coalesce((SELECT sum(octet_length(data)) FROM run_events WHERE run_id = ended.id), 0)
FROM ended LEFT JOIN run_requests AS request ON request.run_id = ended.id
RETURNING run_id;

-- name: apps
-- Whose runs are kept: one look at the index an app, however many runs each has.
WITH RECURSIVE app (app_id) AS (
    (SELECT app_id FROM kept_runs ORDER BY app_id LIMIT 1)
    UNION ALL
    SELECT (SELECT app_id FROM kept_runs WHERE app_id > app.app_id ORDER BY app_id LIMIT 1) FROM app WHERE app.app_id IS NOT NULL
)
SELECT app.app_id, said.retention::text FROM app LEFT JOIN apps AS said USING (app_id) WHERE app.app_id IS NOT NULL;

-- name: old_output
SELECT run_id FROM kept_runs
WHERE app_id = $1 AND output = 'kept' AND finished_at < now() - make_interval(secs => $2::float8)
ORDER BY finished_at LIMIT $3;

-- name: old_events
SELECT run_id FROM kept_runs
WHERE app_id = $1 AND events = 'kept' AND output = 'gone' AND finished_at < now() - make_interval(secs => $2::float8)
ORDER BY finished_at LIMIT $3;

-- name: weight
SELECT coalesce(sum(output_bytes + event_bytes), 0)::bigint FROM kept_runs WHERE app_id = $1;

-- name: heavy_output
-- The oldest ones whose output makes up $2 bytes; none that ended less than $4 seconds ago.
SELECT run_id FROM (
    SELECT run_id, finished_at, sum(output_bytes) OVER (ORDER BY finished_at, run_id) - output_bytes AS before
    FROM kept_runs
    WHERE app_id = $1 AND output = 'kept' AND finished_at < now() - make_interval(secs => $4::float8)
) AS oldest
WHERE before < $2::bigint ORDER BY finished_at, run_id LIMIT $3;

-- name: heavy_events
SELECT run_id FROM (
    SELECT run_id, finished_at, sum(event_bytes) OVER (ORDER BY finished_at, run_id) - event_bytes AS before
    FROM kept_runs
    WHERE app_id = $1 AND events = 'kept' AND output = 'gone' AND finished_at < now() - make_interval(secs => $4::float8)
) AS oldest
WHERE before < $2::bigint ORDER BY finished_at, run_id LIMIT $3;

-- name: mark_output
WITH marked AS (
    UPDATE kept_runs SET output = 'going', output_bytes = 0 WHERE run_id = ANY ($1::text[]) AND output = 'kept' RETURNING run_id
)
INSERT INTO gone_output (run_id, attempt, stream, total_bytes)
SELECT DISTINCT ON (raw.run_id, raw.attempt, raw.stream)
       raw.run_id, raw.attempt, raw.stream, raw.byte_from + octet_length(raw.bytes)
FROM marked JOIN raw_output AS raw USING (run_id)
ORDER BY raw.run_id, raw.attempt, raw.stream, raw.byte_from DESC;

-- name: mark_events
-- All but the last one, which says how the run ended.
UPDATE kept_runs AS kept
SET events = 'going', events_to = head.last_cursor - 1, events_gone_at = now(),
    event_bytes = coalesce((SELECT octet_length(data) FROM run_events WHERE run_id = head.run_id AND cursor = head.last_cursor), 0)
FROM run_heads AS head
WHERE kept.run_id = ANY ($1::text[]) AND head.run_id = kept.run_id AND kept.events = 'kept' AND kept.output = 'gone';

-- name: delete_output
WITH going AS (
    SELECT run_id FROM kept_runs WHERE (output = 'going' OR events = 'going') AND output = 'going' ORDER BY run_id LIMIT 100
), part AS (
    SELECT going.run_id, piece.attempt, piece.stream, piece.byte_from
    FROM going CROSS JOIN LATERAL (
        SELECT attempt, stream, byte_from FROM raw_output AS raw WHERE raw.run_id = going.run_id
        ORDER BY attempt, stream, byte_from LIMIT $1) AS piece
    LIMIT $1
)
DELETE FROM raw_output AS raw USING part
WHERE raw.run_id = part.run_id AND raw.attempt = part.attempt AND raw.stream = part.stream AND raw.byte_from = part.byte_from;

-- name: settle_output
UPDATE kept_runs AS kept SET output = 'gone'
WHERE (output = 'going' OR events = 'going') AND output = 'going'
  AND NOT EXISTS (SELECT FROM raw_output AS raw WHERE raw.run_id = kept.run_id);

-- name: delete_events
WITH going AS (
    SELECT run_id, events_to FROM kept_runs WHERE (output = 'going' OR events = 'going') AND events = 'going'
    ORDER BY run_id LIMIT 100
), part AS (
    SELECT going.run_id, old.cursor
    FROM going CROSS JOIN LATERAL (
        SELECT cursor FROM run_events AS event WHERE event.run_id = going.run_id AND event.cursor <= going.events_to
        ORDER BY cursor LIMIT $1) AS old
    LIMIT $1
)
DELETE FROM run_events AS event USING part WHERE event.run_id = part.run_id AND event.cursor = part.cursor;

-- name: settle_events
UPDATE kept_runs AS kept SET events = 'gone'
WHERE (output = 'going' OR events = 'going') AND events = 'going'
  AND NOT EXISTS (SELECT FROM run_events AS event WHERE event.run_id = kept.run_id AND event.cursor <= kept.events_to);

-- name: old_runs
-- Runs that nobody goes on from: their workspace has no run that is living or young, or a later run of their session has taken over
-- its engine session and the snapshot is not of them. $1 whose, $2 after how many seconds, $3 how many;
-- $4 and $5 the seconds of every app (NULL: for ever).
WITH ages AS (
    SELECT * FROM unnest($4::text[], $5::float8[]) AS age (app_id, seconds)
)
SELECT kept.run_id
FROM kept_runs AS kept JOIN agent_runs AS run ON run.id = kept.run_id
WHERE kept.app_id = $1 AND kept.events = 'gone' AND kept.finished_at < now() - make_interval(secs => $2::float8)
  AND (
    NOT EXISTS (
        SELECT FROM run_requests AS beside
        JOIN agent_runs AS other ON other.id = beside.run_id
        LEFT JOIN ages ON ages.app_id = coalesce(other.app_id, '')
        WHERE beside.workspace_key = kept.workspace_key
          AND (other.finished_at IS NULL OR ages.seconds IS NULL
               OR other.finished_at >= now() - make_interval(secs => ages.seconds)))
    OR (
        EXISTS (
            SELECT FROM run_requests AS beside
            JOIN agent_runs AS later ON later.id = beside.run_id
            JOIN attempts AS took_over ON took_over.run_id = later.id
            WHERE beside.workspace_key = kept.workspace_key AND later.id <> kept.run_id
              AND later.session_id IS NOT DISTINCT FROM run.session_id AND later.app_id IS NOT DISTINCT FROM run.app_id
              AND later.created_at > run.created_at
              AND took_over.started_at IS NOT NULL AND took_over.engine_session IS NOT NULL
              AND took_over.created_at > coalesce(
                  (SELECT max(own.created_at) FROM attempts AS own WHERE own.run_id = kept.run_id), '-infinity'))
        AND NOT EXISTS (
            SELECT FROM workspace_snapshots AS snapshot
            WHERE snapshot.workspace_key = kept.workspace_key AND snapshot.run_id = kept.run_id)))
ORDER BY kept.finished_at LIMIT $3;

-- name: leave_workspaces
-- Which executors are to hear of it; '' where there is a snapshot.
INSERT INTO left_workspaces (workspace_key, executor_id, run_id)
SELECT kept.workspace_key, attempt.executor_id, kept.run_id
FROM kept_runs AS kept JOIN attempts AS attempt USING (run_id) WHERE kept.run_id = ANY ($1::text[])
UNION
SELECT kept.workspace_key, '', kept.run_id
FROM kept_runs AS kept JOIN workspace_snapshots AS snapshot USING (workspace_key) WHERE kept.run_id = ANY ($1::text[])
ON CONFLICT DO NOTHING;

-- name: delete_runs
-- Everything that is left of them; their events and output went before, but for the last event.
WITH keys AS (DELETE FROM idempotency_keys WHERE run_id = ANY ($1::text[])),
     sent AS (DELETE FROM run_messages WHERE run_id = ANY ($1::text[])),
     asked AS (DELETE FROM interactions WHERE run_id = ANY ($1::text[])),
     told AS (DELETE FROM run_events WHERE run_id = ANY ($1::text[])),
     tried AS (DELETE FROM attempts WHERE run_id = ANY ($1::text[])),
     gone AS (DELETE FROM gone_output WHERE run_id = ANY ($1::text[])),
     requests AS (DELETE FROM run_requests WHERE run_id = ANY ($1::text[])),
     heads AS (DELETE FROM run_heads WHERE run_id = ANY ($1::text[])),
     kept AS (DELETE FROM kept_runs WHERE run_id = ANY ($1::text[]))
DELETE FROM agent_runs WHERE id = ANY ($1::text[]);

-- name: forget_snapshots
-- After its last run nobody goes on from a snapshot.
DELETE FROM workspace_snapshots AS snapshot
WHERE workspace_key = ANY ($1::text[])
  AND NOT EXISTS (SELECT FROM run_requests AS request WHERE request.workspace_key = snapshot.workspace_key);

-- name: workspaces_of
SELECT DISTINCT workspace_key FROM kept_runs WHERE run_id = ANY ($1::text[]);

-- name: take_left
-- Workspaces of which no run is left, at the executors ($3) that can hear of it; told again after $2 seconds where that does not settle
-- it. Who is away is told when it is back.
WITH due AS (
    SELECT workspace_key, executor_id FROM left_workspaces AS place
    WHERE tell_after <= now() AND executor_id = ANY ($3::text[])
      AND NOT EXISTS (SELECT FROM run_requests AS request WHERE request.workspace_key = place.workspace_key)
    ORDER BY tell_after LIMIT $1
)
UPDATE left_workspaces AS place SET tell_after = now() + make_interval(secs => $2::float8)
FROM (SELECT DISTINCT workspace_key, executor_id FROM due) AS told
WHERE place.workspace_key = told.workspace_key AND place.executor_id = told.executor_id
RETURNING place.workspace_key, place.executor_id, place.run_id;

-- name: has_left
SELECT EXISTS (SELECT FROM left_workspaces);

-- name: is_left
SELECT NOT EXISTS (SELECT FROM run_requests WHERE workspace_key = $1);

-- name: settle_left
DELETE FROM left_workspaces WHERE workspace_key = $1 AND executor_id = $2 AND run_id = ANY ($3::text[]);

-- name: give_up_left
-- An executor that was away for so long has taken its files with it.
DELETE FROM left_workspaces WHERE since < now() - make_interval(secs => $1::float8);

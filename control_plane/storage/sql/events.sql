-- name: page
-- $4 how many, $5 how many bytes of payload: the event that passes them is the last one. Trimmed history is one event more, the gap;
-- after it comes the run's last event only. (A branch of its own, so that the plan of the frequent one knows its range.)
WITH gone AS (
    SELECT least(events_to, $3::bigint - 1) AS gone_to, events_gone_at FROM kept_runs
    WHERE run_id = $1 AND events_to > $2::bigint AND $3::bigint > $2::bigint + 1
)
SELECT gone_to AS cursor, 0 AS attempt, 'stream.gap' AS kind, events_gone_at AS at,
       format('{"from":%s,"to":%s}', $2::bigint + 1, gone_to) AS data, NULL AS raw_ref
FROM gone
UNION ALL
SELECT cursor, attempt, kind, at, data, raw_ref FROM run_events
WHERE run_id = $1 AND cursor > (SELECT gone_to FROM gone) AND cursor < $3::bigint
UNION ALL
SELECT cursor, attempt, kind, at, data, raw_ref
FROM (
    SELECT *, sum(octet_length(data)) OVER (ORDER BY cursor) - octet_length(data) AS bytes_before
    FROM (
        SELECT cursor, attempt, kind, at, data, raw_ref FROM run_events
        WHERE run_id = $1 AND cursor > $2::bigint AND cursor < $3::bigint AND NOT EXISTS (SELECT FROM gone)
        ORDER BY cursor LIMIT $4
    ) AS page
) AS measured
WHERE bytes_before < $5
ORDER BY cursor;

-- name: raw_held
-- How much a stream held, and how much of it is gone: all of it or nothing.
SELECT greatest(gone.total_bytes, stored.total_bytes) AS total, gone.total_bytes AS gone
FROM (SELECT coalesce((
    SELECT byte_from + octet_length(bytes) FROM raw_output
    WHERE run_id = $1 AND attempt = $2 AND stream = $3
    ORDER BY byte_from DESC LIMIT 1
), 0) AS total_bytes) AS stored,
(SELECT coalesce((
    SELECT total_bytes FROM gone_output WHERE run_id = $1 AND attempt = $2 AND stream = $3
), 0) AS total_bytes) AS gone;

-- name: raw_range
-- Nothing once it is said to be gone, also while some of it still stands there.
SELECT byte_from, bytes FROM raw_output
WHERE run_id = $1 AND attempt = $2 AND stream = $3 AND byte_from < $5 AND byte_from >= $4 - 65536
  AND NOT EXISTS (SELECT FROM gone_output WHERE run_id = $1 AND attempt = $2 AND stream = $3)
ORDER BY byte_from;

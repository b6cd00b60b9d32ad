-- name: page
-- $4 how many, $5 how many bytes of payload: the event that passes them is the last one.
SELECT cursor, attempt, kind, at, data, raw_ref
FROM (
    SELECT *, sum(octet_length(data)) OVER (ORDER BY cursor) - octet_length(data) AS bytes_before
    FROM (
        SELECT cursor, attempt, kind, at, data, raw_ref FROM run_events
        WHERE run_id = $1 AND cursor > $2 AND cursor < $3
        ORDER BY cursor LIMIT $4
    ) AS page
) AS measured
WHERE bytes_before < $5
ORDER BY cursor;

-- name: raw_total
SELECT coalesce((
    SELECT byte_from + octet_length(bytes) FROM raw_output
    WHERE run_id = $1 AND attempt = $2 AND stream = $3
    ORDER BY byte_from DESC LIMIT 1
), 0);

-- name: raw_range
SELECT byte_from, bytes FROM raw_output
WHERE run_id = $1 AND attempt = $2 AND stream = $3 AND byte_from < $5 AND byte_from >= $4 - 65536
ORDER BY byte_from;

-- name: page
SELECT cursor, attempt, kind, at, data, raw_ref FROM run_events
WHERE run_id = $1 AND cursor > $2 AND cursor < $3
ORDER BY cursor LIMIT $4;

-- name: raw_total
SELECT coalesce(max(byte_from + octet_length(bytes)), 0) FROM raw_output WHERE run_id = $1 AND attempt = $2 AND stream = $3;

-- name: raw_range
SELECT byte_from, bytes FROM raw_output
WHERE run_id = $1 AND attempt = $2 AND stream = $3 AND byte_from < $5 AND byte_from >= $4 - 65536
ORDER BY byte_from;

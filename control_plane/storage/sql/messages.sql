-- Further user messages of runs. They are settled by the event log's writer, together with the event that tells of it.

-- name: lock_head
-- A message, like every writer of a run, takes the run's head first: none can come after the run's last event.
SELECT head.run_id FROM run_heads AS head WHERE head.run_id = $1 FOR UPDATE;

-- name: status
SELECT status::text FROM agent_runs WHERE id = $1;

-- name: waiting
SELECT count(*) FROM run_messages WHERE run_id = $1 AND status = 'pending';

-- name: take_key
-- A twin waits here for our commit and then finds the key taken.
INSERT INTO idempotency_keys (app_id, key, body_sha256, run_id) VALUES ($1, $2, $3, $4)
ON CONFLICT (app_id, key) DO NOTHING
RETURNING key;

-- name: of_key
SELECT kept.body_sha256, message.message_id, message.status, message.created_at
FROM idempotency_keys AS kept
LEFT JOIN run_messages AS message ON message.run_id = kept.run_id AND message.idempotency_key = kept.key
WHERE kept.app_id = $1 AND kept.key = $2
ORDER BY message.position DESC
LIMIT 1;

-- name: add
INSERT INTO run_messages (run_id, message_id, content, sent_by, idempotency_key) VALUES ($1, $2, $3::text::json, $4, $5)
RETURNING created_at;


-- name: heard
-- What attempts before $2 have taken.
SELECT attempt, created_at, content FROM run_messages
WHERE run_id = $1 AND status = 'delivered' AND attempt < $2 ORDER BY position;

-- name: pending
-- What is to be handed over, oldest first. $2 an attempt: what does not travel with its start; $3: only what does.
SELECT message_id, content FROM run_messages
WHERE run_id = $1 AND status = 'pending' AND (carried_by IS NOT DISTINCT FROM $2::int) = $3
ORDER BY position;

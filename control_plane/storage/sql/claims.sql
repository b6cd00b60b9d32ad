-- Claims where caps are set. Without caps the one statement of runs.sql does it.

-- name: lock
SELECT pg_advisory_xact_lock(7204117);

-- name: living
-- What holds a place: whatever began and is neither over nor parked, and what a driver is bringing to an executor.
SELECT run.app_id, run.provider, count(*) AS runs
FROM run_heads AS head
JOIN agent_runs AS run ON run.id = head.run_id
WHERE head.claim_after IS NOT NULL AND (run.status <> 'queued' OR head.lease_until >= now())
GROUP BY run.app_id, run.provider;

-- name: line
-- Who may be claimed, in the order of the line; the conditions are those of the claim in runs.sql.
-- $1 how many, $2 the runs its caller drives, $3 providers without room, $4 apps and $5 providers that take no further run, $6 and $7
-- the rise by waiting.
SELECT head.run_id, run.app_id, run.provider, run.status = 'queued' AS is_new
FROM run_heads AS head
JOIN agent_runs AS run ON run.id = head.run_id
WHERE head.claim_after <= now()
  AND (head.lease_until IS NULL OR head.lease_until < now())
  AND head.run_id <> ALL ($2::text[])
  AND (run.provider <> ALL ($3::text[]) OR run.status = 'stopping' OR head.attempt > 0 AND EXISTS (
      SELECT FROM attempts AS works
      WHERE works.run_id = head.run_id AND works.attempt = head.attempt AND works.ended_at IS NULL))
  AND (run.status <> 'queued' OR run.provider <> ALL ($5::text[]) AND (run.app_id IS NULL OR run.app_id <> ALL ($4::text[])))
  AND (run.status <> 'queued' OR run.workspace_key = run.id OR NOT EXISTS (
      SELECT FROM agent_runs AS earlier
      WHERE earlier.workspace_key = run.workspace_key
        AND earlier.status IN ('queued', 'running', 'waiting_user', 'stopping')
        AND (earlier.created_at, earlier.id) < (run.created_at, run.id)))
ORDER BY head.priority + least(extract(epoch FROM now() - run.created_at)::float8 / $6::float8, $7::float8) DESC,
         run.created_at, head.run_id
LIMIT $1;

-- name: claim_these
-- As far as nobody has taken or ended them meanwhile.
WITH ready AS (
    SELECT run_id FROM run_heads
    WHERE run_id = ANY ($1::text[]) AND claim_after <= now() AND (lease_until IS NULL OR lease_until < now())
    ORDER BY run_id
    FOR UPDATE SKIP LOCKED
)
UPDATE run_heads AS head
SET lease_token = gen_random_uuid(), lease_until = now() + make_interval(secs => $2::float8)
FROM ready
WHERE head.run_id = ready.run_id
RETURNING head.run_id, head.lease_token;

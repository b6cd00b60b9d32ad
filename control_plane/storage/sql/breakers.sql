-- Breakers: whether the model still takes an app's credentials. Rows are few.

-- name: one
SELECT *, clock_timestamp() AS now FROM breakers WHERE lender = $1 AND provider = $2;

-- name: all
-- $1 the lender whose breakers are shown; NULL: all.
SELECT * FROM breakers WHERE opened_at IS NOT NULL AND ($1::text IS NULL OR lender = $1) ORDER BY lender, provider;

-- name: lock
-- One writer at a time for each pair, also before it has a row.
SELECT pg_advisory_xact_lock(hashtextextended($1 || '/' || $2, 7204116));

-- name: put
INSERT INTO breakers (lender, provider, error_code, failures, since, opened_at, try_at, trying, rests)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (lender, provider) DO UPDATE
SET error_code = $3, failures = $4, since = $5, opened_at = $6, try_at = $7, trying = $8, rests = $9;

-- name: close
DELETE FROM breakers WHERE lender = $1 AND provider = $2;

-- name: forget
DELETE FROM breakers WHERE lender = $1;

-- name: try
-- One run at a time tries an open breaker. It keeps its turn while it looks for an executor and between its attempts; once the turn
-- is over another may have it, unless an attempt of the one before still works. That one may have it again some seconds later only:
-- it looks more often than those it held up.
UPDATE breakers AS breaker
SET trying = $3, try_at = CASE WHEN try_at <= now() THEN now() + make_interval(secs => $4::float8) ELSE try_at END
WHERE lender = $1 AND provider = $2 AND opened_at IS NOT NULL
  AND (trying = $3 AND try_at NOT BETWEEN now() - interval '3 seconds' AND now() OR try_at <= now()
       AND trying IS DISTINCT FROM $3 AND NOT EXISTS (
      SELECT FROM run_heads AS head JOIN attempts AS attempt USING (run_id, attempt)
      WHERE head.run_id = breaker.trying AND attempt.ended_at IS NULL))
RETURNING lender;

-- name: let_go
-- Runs whose breaker is open no more, or was forgotten, need not wait to its end.
WITH free AS (
    SELECT head.run_id
    FROM run_heads AS head
    JOIN agent_runs AS run ON run.id = head.run_id
    WHERE head.held AND head.claim_after > now() AND head.lease_token IS NULL
      AND NOT EXISTS (SELECT FROM breakers AS breaker
                      WHERE breaker.lender = run.lender AND breaker.provider = run.provider AND breaker.opened_at IS NOT NULL)
    ORDER BY head.run_id
    FOR UPDATE OF head SKIP LOCKED
)
UPDATE run_heads AS head SET claim_after = now(), held = false FROM free WHERE head.run_id = free.run_id
RETURNING head.run_id;

-- name: create
INSERT INTO api_keys (key_id, app_id, name, secret_sha256, scopes) VALUES ($1, $2, $3, $4, $5);

-- name: one
SELECT key.key_id, key.app_id, key.secret_sha256, key.scopes, coalesce(NOT app.enabled, false) AS app_disabled
FROM api_keys AS key
LEFT JOIN apps AS app ON app.app_id = key.app_id
WHERE key.key_id = $1 AND key.revoked_at IS NULL;

-- name: page
-- By id, of one app ($3) or of all (NULL).
SELECT key_id, app_id, name, scopes, created_at, revoked_at
FROM api_keys
WHERE key_id > $1 AND ($3::text IS NULL OR app_id = $3)
ORDER BY key_id LIMIT $2;

-- name: revoke
-- A key that was revoked keeps the time when it was.
UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE key_id = $1
RETURNING key_id, app_id, name, scopes, created_at, revoked_at;

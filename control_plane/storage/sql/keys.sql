-- name: create
INSERT INTO api_keys (key_id, app_id, name, secret_sha256, scopes) VALUES ($1, $2, $3, $4, $5);

-- name: one
SELECT key.key_id, key.app_id, key.secret_sha256, key.scopes, coalesce(NOT app.enabled, false) AS app_disabled
FROM api_keys AS key
LEFT JOIN apps AS app ON app.app_id = key.app_id
WHERE key.key_id = $1 AND key.revoked_at IS NULL;

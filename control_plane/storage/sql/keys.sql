-- name: create
INSERT INTO api_keys (key_id, app_id, name, secret_sha256, scopes) VALUES ($1, $2, $3, $4, $5);

-- name: one
SELECT key_id, app_id, secret_sha256, scopes FROM api_keys WHERE key_id = $1 AND revoked_at IS NULL;

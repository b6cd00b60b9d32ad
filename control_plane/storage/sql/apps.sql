-- Registered callers.

-- name: register
-- Makes an app or replaces what it was; its credentials are replaced whole.
INSERT INTO apps AS app (app_id, name, enabled, visibility_rules, members, runtime_defaults, credential_env,
                         retention)
VALUES ($1, $2, $3, $4::text::json, $5::text::json, $6::text::json, $7::text::json, $8::text::json)
ON CONFLICT (app_id) DO UPDATE SET
    name = excluded.name, enabled = excluded.enabled, visibility_rules = excluded.visibility_rules, members = excluded.members,
    runtime_defaults = excluded.runtime_defaults, credential_env = excluded.credential_env, retention = excluded.retention, updated_at = now()
RETURNING app.app_id;

-- name: one
SELECT app_id, name, enabled, visibility_rules::text, members::text, runtime_defaults::text, retention::text,
       ARRAY(SELECT json_object_keys(credential_env)) AS credential_names, created_at, updated_at
FROM apps WHERE app_id = $1;

-- name: page
SELECT app_id, name, enabled, visibility_rules::text, members::text, runtime_defaults::text, retention::text,
       ARRAY(SELECT json_object_keys(credential_env)) AS credential_names, created_at, updated_at
FROM apps WHERE app_id > $1 ORDER BY app_id LIMIT $2;

-- name: credentials
-- What an enabled app lends to the engines of its runs.
SELECT credential_env::text FROM apps WHERE app_id = $1 AND enabled;

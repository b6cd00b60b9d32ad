-- migrate:up
-- Registered callers. Credential values are kept beside the rest, in a column of their own that no list reads.
CREATE TABLE apps (
    app_id text PRIMARY KEY,
    name text NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    visibility_rules json NOT NULL DEFAULT '[]',
    members json NOT NULL DEFAULT '[]',
    runtime_defaults json NOT NULL DEFAULT '{}',   -- without credentials
    credential_env json NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- What a run took from its execution profile, frozen; credentials are read from the app at each start.
ALTER TABLE run_requests ADD COLUMN profile json;

-- migrate:up
CREATE TYPE run_status AS ENUM ('queued', 'running', 'waiting_user', 'stopping', 'success', 'error', 'timeout', 'canceled');

-- The summary of every execution; the tracker's columns first. Requests, attempts, events, logs and questions have tables of
-- their own.
CREATE TABLE agent_runs (
    id text PRIMARY KEY,
    source text NOT NULL,
    source_ref text,
    session_id text,
    status run_status NOT NULL DEFAULT 'queued',
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    duration_ms bigint,
    error_code text,
    error_message text,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (octet_length(metadata::text) <= 16384),
    app_id text,
    provider text,
    model text,
    driven_by text NOT NULL DEFAULT 'runyard',
    retryable boolean,
    exit_code int,
    stop_requested_at timestamptz,
    stop_reason text,                 -- the error code a stop was asked with
    active_ms_left bigint,            -- settled whenever the run stops being active
    active_since timestamptz,
    interaction_ms bigint NOT NULL DEFAULT 86400000,   -- how long a question of this run stays open
    on_expiry text NOT NULL DEFAULT 'fail' CHECK (on_expiry IN ('fail', 'deny', 'answer')),
    CONSTRAINT finished_at_iff_terminal CHECK (
        (finished_at IS NOT NULL) = (status IN ('success', 'error', 'timeout', 'canceled'))),
    CONSTRAINT a_failure_has_a_code CHECK (status NOT IN ('error', 'timeout') OR error_code IS NOT NULL),
    CONSTRAINT a_success_has_none CHECK (status <> 'success' OR error_code IS NULL),
    CONSTRAINT what_runs_has_started CHECK (status NOT IN ('running', 'waiting_user', 'success') OR started_at IS NOT NULL),
    CONSTRAINT a_stop_was_asked_for CHECK (status <> 'stopping' OR stop_requested_at IS NOT NULL),
    CONSTRAINT a_stop_has_a_reason CHECK ((stop_requested_at IS NULL) = (stop_reason IS NULL))
);
CREATE INDEX idx_agent_runs_source_started_at ON agent_runs (source, started_at DESC);
CREATE INDEX idx_agent_runs_session_started_at ON agent_runs (session_id, started_at DESC);
CREATE INDEX idx_agent_runs_status_started_at ON agent_runs (status, started_at DESC);
CREATE INDEX agent_runs_by_creation ON agent_runs (created_at DESC, id DESC);
CREATE INDEX agent_runs_by_app ON agent_runs (app_id, created_at DESC, id DESC);
CREATE INDEX agent_runs_living_session ON agent_runs (session_id, created_at, id)
    WHERE session_id IS NOT NULL AND status IN ('queued', 'running', 'waiting_user', 'stopping');

-- What the code's table of transitions says, said again by the schema: forward only, and an end is an end.
CREATE FUNCTION agent_runs_move_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status IN ('success', 'error', 'timeout', 'canceled') THEN
        RAISE EXCEPTION 'run % is % for ever', OLD.id, OLD.status USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.status = 'queued' THEN
        RAISE EXCEPTION 'run % cannot go back to queued', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER agent_runs_forward_only BEFORE UPDATE OF status ON agent_runs
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION agent_runs_move_forward();

-- Narrow and hot: locked first by every writer of a run.
CREATE TABLE run_heads (
    run_id text PRIMARY KEY REFERENCES agent_runs,
    last_cursor bigint NOT NULL DEFAULT 0,
    fcmp_seq bigint NOT NULL DEFAULT 0,
    attempt int NOT NULL DEFAULT 0,
    executor_cursor bigint NOT NULL DEFAULT 0,
    lease_token uuid,
    lease_until timestamptz,
    priority smallint NOT NULL DEFAULT 0,
    claim_after timestamptz,          -- NULL: nobody is to drive it (finished, or parked until a reply)
    CONSTRAINT lease_is_whole CHECK ((lease_token IS NULL) = (lease_until IS NULL)),
    CONSTRAINT who_is_leased_may_be_claimed CHECK (lease_token IS NULL OR claim_after IS NOT NULL)
) WITH (fillfactor = 50);
CREATE INDEX run_heads_claimable ON run_heads (priority DESC, claim_after) WHERE claim_after IS NOT NULL;

-- What was asked for. Skill requests get tables of their own.
CREATE TABLE run_requests (
    run_id text PRIMARY KEY REFERENCES agent_runs,
    workspace_key text NOT NULL,
    resume_session text,              -- the engine session to go on with
    request json NOT NULL
);

CREATE TABLE attempts (
    run_id text NOT NULL REFERENCES agent_runs,
    attempt int NOT NULL CHECK (attempt >= 1),
    executor_id text NOT NULL,
    executor_instance text NOT NULL,
    executor_url text NOT NULL,
    engine_session text,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    ended_at timestamptz,
    outcome json,
    PRIMARY KEY (run_id, attempt),
    CONSTRAINT an_outcome_is_an_end CHECK ((ended_at IS NOT NULL) = (outcome IS NOT NULL))
);
CREATE INDEX attempts_by_engine_session ON attempts (engine_session) WHERE engine_session IS NOT NULL;
CREATE UNIQUE INDEX attempts_one_living_per_run ON attempts (run_id) WHERE ended_at IS NULL;

CREATE TABLE run_events (
    run_id text NOT NULL REFERENCES agent_runs,
    cursor bigint NOT NULL CHECK (cursor >= 1),
    attempt int NOT NULL,
    kind text NOT NULL,
    at timestamptz NOT NULL,
    data text NOT NULL,
    raw_ref text,
    fcmp_seq bigint NOT NULL,
    PRIMARY KEY (run_id, cursor)
);
ALTER TABLE run_events ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE raw_output (
    run_id text NOT NULL,
    attempt int NOT NULL,
    stream text NOT NULL,
    byte_from bigint NOT NULL,
    bytes bytea NOT NULL,
    PRIMARY KEY (run_id, attempt, stream, byte_from)
);
ALTER TABLE raw_output ALTER COLUMN bytes SET STORAGE EXTERNAL;

CREATE TABLE interactions (
    run_id text NOT NULL REFERENCES agent_runs,
    question_id text NOT NULL,
    attempt int NOT NULL,
    request json NOT NULL,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'answered', 'delivered', 'expired', 'withdrawn')),
    answer json,
    answered_by text,
    answered_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    on_expiry text NOT NULL DEFAULT 'fail',
    PRIMARY KEY (run_id, question_id),
    CONSTRAINT an_answer_is_whole CHECK ((answer IS NULL) = (answered_at IS NULL)),
    CONSTRAINT what_is_answered_has_an_answer CHECK (status NOT IN ('answered', 'delivered') OR answer IS NOT NULL),
    CONSTRAINT what_is_pending_has_none CHECK (status <> 'pending' OR answer IS NULL)
);
CREATE INDEX interactions_open ON interactions (created_at, run_id, question_id) WHERE status IN ('pending', 'answered');
CREATE INDEX interactions_expiring ON interactions (expires_at) WHERE status = 'pending';

-- A reply is accepted once: nothing overwrites an answer and nothing becomes pending again.
CREATE FUNCTION interactions_answer_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.answer IS NOT NULL AND NEW.answer::text IS DISTINCT FROM OLD.answer::text THEN
        RAISE EXCEPTION 'question % has its answer', OLD.question_id USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.status <> 'pending' AND NEW.status = 'pending'
       OR OLD.status IN ('delivered', 'expired', 'withdrawn') AND NEW.status <> OLD.status THEN
        RAISE EXCEPTION 'question % is %', OLD.question_id, OLD.status USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER interactions_answered_once BEFORE UPDATE ON interactions
    FOR EACH ROW EXECUTE FUNCTION interactions_answer_once();

CREATE TABLE idempotency_keys (
    app_id text NOT NULL,
    key text NOT NULL,
    body_sha256 bytea NOT NULL,
    run_id text NOT NULL REFERENCES agent_runs DEFERRABLE INITIALLY DEFERRED,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (app_id, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

CREATE TABLE api_keys (
    key_id text PRIMARY KEY,
    app_id text,                      -- NULL: an admin key
    name text NOT NULL,
    secret_sha256 bytea NOT NULL,
    scopes text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

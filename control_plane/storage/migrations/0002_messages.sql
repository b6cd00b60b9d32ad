-- migrate:up
-- Further user messages of a run: rows first, handed to its engine by whoever drives it.
CREATE TABLE run_messages (
    run_id text NOT NULL REFERENCES agent_runs,
    message_id text NOT NULL,
    position bigint GENERATED ALWAYS AS IDENTITY,
    content json NOT NULL,
    sent_by text,
    idempotency_key text,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'undeliverable')),
    attempt int,                      -- the attempt that took it
    carried_by int,                   -- the attempt whose start it travels with; NULL: it is handed to the living engine
    created_at timestamptz NOT NULL DEFAULT now(),
    settled_at timestamptz,
    PRIMARY KEY (run_id, message_id),
    CONSTRAINT what_is_settled_has_a_time CHECK ((status = 'pending') = (settled_at IS NULL)),
    CONSTRAINT what_is_delivered_was_taken CHECK ((status = 'delivered') = (attempt IS NOT NULL))
);
CREATE INDEX run_messages_pending ON run_messages (run_id, position) WHERE status = 'pending';

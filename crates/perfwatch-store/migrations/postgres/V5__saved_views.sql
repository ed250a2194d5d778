-- Saved views of queries over many hosts.
CREATE TABLE saved_view (
    id BYTEA PRIMARY KEY,
    owner BYTEA NOT NULL,
    name TEXT NOT NULL,
    -- Visible to all accounts.
    shared BIGINT NOT NULL CHECK (shared IN (0, 1)),
    -- Queries and chart, as JSON.
    body TEXT NOT NULL,
    updated_ms BIGINT NOT NULL,
    UNIQUE (owner, name)
);

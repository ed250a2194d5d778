-- Saved views of queries over many hosts.
CREATE TABLE saved_view (
    id BLOB PRIMARY KEY,
    owner BLOB NOT NULL,
    name TEXT NOT NULL,
    -- Visible to all accounts.
    shared INTEGER NOT NULL CHECK (shared IN (0, 1)),
    -- Queries and chart, as JSON.
    body TEXT NOT NULL,
    updated_ms INTEGER NOT NULL,
    UNIQUE (owner, name)
) WITHOUT ROWID;

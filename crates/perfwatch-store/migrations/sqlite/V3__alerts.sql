-- What people ask to be told of, who is told, and when not: each as a record.
CREATE TABLE rule (
    id BLOB PRIMARY KEY,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE channel (
    id BLOB PRIMARY KEY,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE silence (
    id BLOB PRIMARY KEY,
    body TEXT NOT NULL
) WITHOUT ROWID;

-- Alerts that belong together.
CREATE TABLE incident (
    id BLOB PRIMARY KEY,
    -- What its alerts have in common.
    key TEXT NOT NULL,
    -- The same while it is not over: one at a time.
    live_key TEXT UNIQUE,
    title TEXT NOT NULL,
    severity TEXT NOT NULL,
    phase TEXT NOT NULL,
    opened_ms INTEGER NOT NULL,
    calm_ms INTEGER,
    reopened INTEGER NOT NULL,
    -- Who takes it on, as a record.
    ack TEXT,
    -- Whether anybody was told.
    told INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX incident_time ON incident (opened_ms);

-- What fired.
CREATE TABLE alert (
    id BLOB PRIMARY KEY,
    incident BLOB NOT NULL,
    -- Rule, host and instance while it fires: one at a time.
    live_key TEXT UNIQUE,
    rule BLOB NOT NULL,
    host BLOB NOT NULL,
    severity TEXT NOT NULL,
    fired_ms INTEGER NOT NULL,
    resolved_ms INTEGER,
    body TEXT NOT NULL,
    -- What was seen when it fired, as a record.
    explanation TEXT
) WITHOUT ROWID;
CREATE INDEX alert_incident ON alert (incident);
CREATE INDEX alert_host ON alert (host, fired_ms);
CREATE INDEX alert_rule ON alert (rule, fired_ms);

-- What became of an incident, and what people said of it.
CREATE TABLE incident_event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    incident BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX incident_event_incident ON incident_event (incident);

-- Messages on their way out.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    channel BLOB NOT NULL,
    incident BLOB NOT NULL,
    notice TEXT NOT NULL,
    severity TEXT NOT NULL,
    -- One that waits takes in what comes after it.
    merge_key TEXT UNIQUE,
    created_ms INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,
    -- Not tried before this.
    next_ms INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    -- waiting, sent, dead, skipped
    state TEXT NOT NULL,
    error TEXT,
    done_ms INTEGER,
    body TEXT NOT NULL
);
CREATE INDEX outbox_state ON outbox (state, channel, due_ms);
CREATE INDEX outbox_incident ON outbox (incident);

-- When hubs last heard from a host, for those that did not.
CREATE TABLE heard (
    host BLOB PRIMARY KEY,
    at_ms INTEGER NOT NULL
) WITHOUT ROWID;

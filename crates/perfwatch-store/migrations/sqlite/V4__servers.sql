-- Hosts without an agent: where they are, how to enter, and how it went last.
CREATE TABLE server (
    id BLOB PRIMARY KEY,
    -- As people asked for it, as a record.
    body TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    interval_ms INTEGER NOT NULL,
    -- What opens its door, sealed.
    secret BLOB,
    -- Rises with each change that people make.
    version INTEGER NOT NULL,
    -- The key that it must show.
    host_key TEXT,
    -- The other one that it showed.
    shown_key TEXT,
    -- Why it is not tried any more, until somebody acts.
    refused TEXT,
    -- Counters for the next look.
    carried BLOB,
    -- The last look.
    last_ms INTEGER,
    last_took_ms INTEGER,
    last_cause TEXT,
    last_error TEXT,
    -- The last that brought something.
    last_ok_ms INTEGER
) WITHOUT ROWID;

-- Each look at a server, and each test of its connection.
CREATE TABLE look (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    server BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    tries INTEGER NOT NULL,
    took_ms INTEGER NOT NULL,
    cause TEXT,
    error TEXT,
    steps TEXT NOT NULL
);
CREATE INDEX look_server ON look (server, id);
CREATE INDEX look_time ON look (at_ms);

-- Work to do, and that was done.
CREATE TABLE job (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    server BLOB NOT NULL,
    -- The server while it is not done: one at a time.
    live_key BLOB UNIQUE,
    reason TEXT NOT NULL,
    -- waiting, active, completed, failed
    state TEXT NOT NULL,
    run_ms INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    -- Which hub does it, by what right, and until when nobody else does.
    hub TEXT,
    lease BLOB,
    leased_ms INTEGER,
    started_ms INTEGER,
    done_ms INTEGER,
    error TEXT
);
CREATE INDEX job_state ON job (state, run_ms);
CREATE INDEX job_done ON job (done_ms);

-- Schema of the hub's database. Tables, columns and indexes have the same names in SQLite and in PostgreSQL;
-- a migration is written for both. Columns that end in _ms are Unix times or durations in milliseconds,
-- flags are 0 or 1, lists and documents are JSON.

-- Hosts that have data.
CREATE TABLE host (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    facts BLOB,
    first_seen_ms INTEGER NOT NULL,
    last_snapshot_ms INTEGER,
    interval_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- Column schemas, identified by a hash of their content. last_used_ms is updated while snapshots use the shape.
CREATE TABLE shape (
    id BLOB PRIMARY KEY,
    columns BLOB NOT NULL,
    last_used_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- Write-ahead head: accepted snapshots in arrival order, one row per group commit.
CREATE TABLE head (
    arrival INTEGER PRIMARY KEY AUTOINCREMENT,
    hub TEXT NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX head_hub ON head (hub, arrival);

-- Per hub and host: highest arrival already sealed into a block.
CREATE TABLE seal_watermark (
    hub TEXT NOT NULL,
    host BLOB NOT NULL,
    arrival INTEGER NOT NULL,
    PRIMARY KEY (hub, host)
) WITHOUT ROWID;

-- Accepted sequence numbers per host and boot, as ranges (deduplication).
CREATE TABLE sequence_range (
    host BLOB NOT NULL,
    boot BLOB NOT NULL,
    seqs TEXT NOT NULL,
    newest_ms INTEGER NOT NULL,
    PRIMARY KEY (host, boot)
) WITHOUT ROWID;

-- Blocks, one table per tier. `data` is the last column so that metadata is read without it.
-- Tables with a rowid: parts of `data` are read by incremental blob I/O, which tables without one do not allow.
-- An id is never used twice, so that deleting a block that was replaced deletes nothing.
CREATE TABLE block_raw (
    id INTEGER NOT NULL DEFAULT (random() & 9223372036854775807),
    host BLOB NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    shape BLOB NOT NULL,
    header_bytes INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (host, first_ms, id)
);
CREATE INDEX block_raw_time ON block_raw (last_ms, bytes);
CREATE INDEX block_raw_shape ON block_raw (shape);
CREATE TABLE block_minute (
    id INTEGER NOT NULL DEFAULT (random() & 9223372036854775807),
    host BLOB NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    shape BLOB NOT NULL,
    header_bytes INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (host, first_ms, id)
);
CREATE INDEX block_minute_time ON block_minute (last_ms, bytes);
CREATE INDEX block_minute_shape ON block_minute (shape);
CREATE TABLE block_hour (
    id INTEGER NOT NULL DEFAULT (random() & 9223372036854775807),
    host BLOB NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    shape BLOB NOT NULL,
    header_bytes INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (host, first_ms, id)
);
CREATE INDEX block_hour_time ON block_hour (last_ms, bytes);
CREATE INDEX block_hour_shape ON block_hour (shape);

-- Windows that received rows after their last roll-up. stamp changes with every row that arrives.
CREATE TABLE dirty_window (
    tier INTEGER NOT NULL,
    host BLOB NOT NULL,
    window_ms INTEGER NOT NULL,
    stamp INTEGER NOT NULL,
    PRIMARY KEY (tier, host, window_ms)
) WITHOUT ROWID;

-- Per tier: rows before this time have been deleted.
CREATE TABLE retention_watermark (
    tier INTEGER PRIMARY KEY,
    ms INTEGER NOT NULL
);
INSERT INTO retention_watermark (tier, ms) VALUES (0, 0), (1, 0), (2, 0);

-- Leases of singleton tasks.
CREATE TABLE lease (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- User accounts.
CREATE TABLE account (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    -- argon2id in PHC form; NULL for accounts that log in through OpenID Connect only.
    password TEXT,
    -- Encrypted secret of two-factor authentication (RFC 6238), and the last time step whose code was accepted.
    totp_secret BLOB,
    totp_step INTEGER NOT NULL,
    -- Hashes of the unused recovery codes.
    recovery_codes TEXT NOT NULL,
    -- Issuer and subject at an OpenID Connect issuer.
    oidc_subject TEXT UNIQUE,
    -- Limits access to hosts with one of these tags; empty for all hosts.
    host_tags TEXT NOT NULL,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    -- Tokens signed under an earlier epoch are invalid.
    token_epoch INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    last_login_ms INTEGER
) WITHOUT ROWID;

-- Browser sessions, by the hash of the session cookie.
CREATE TABLE session (
    hash BLOB PRIMARY KEY,
    account BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    last_used_ms INTEGER NOT NULL,
    address TEXT NOT NULL,
    user_agent TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX session_account ON session (account);

-- API tokens, by hash.
CREATE TABLE token (
    id BLOB PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    account BLOB NOT NULL,
    name TEXT NOT NULL,
    scope TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    last_used_ms INTEGER
) WITHOUT ROWID;

-- Enrollment tokens.
CREATE TABLE enrollment_token (
    id BLOB PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    -- Tags of the hosts that enroll with the token.
    tags TEXT NOT NULL,
    uses_left INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- Enrolled agents, by the hash of their secret.
CREATE TABLE agent (
    id BLOB PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    host BLOB NOT NULL,
    -- Name of the token the agent enrolled with.
    enrollment_token TEXT NOT NULL,
    address TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    last_seen_ms INTEGER NOT NULL,
    revoked_ms INTEGER
) WITHOUT ROWID;
CREATE INDEX agent_host ON agent (host);

-- Tags, one row per host. The host may not have sent a snapshot yet.
CREATE TABLE host_tags (
    host BLOB PRIMARY KEY,
    tags TEXT NOT NULL
) WITHOUT ROWID;

-- Audit log.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    address TEXT NOT NULL,
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    before TEXT,
    after TEXT
);
CREATE INDEX audit_time ON audit (at_ms);

-- Key-value settings: signing keys, revision counters.
CREATE TABLE setting (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- Rules, channels and silences, each as a JSON document.
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

-- Incidents: groups of alerts with one timeline.
CREATE TABLE incident (
    id BLOB PRIMARY KEY,
    -- Value of the rule's grouping that the alerts share.
    group_key TEXT NOT NULL,
    -- Equals group_key while the incident is open; NULL afterwards (unique: at most one open incident per key).
    open_key TEXT UNIQUE,
    title TEXT NOT NULL,
    severity TEXT NOT NULL,
    phase TEXT NOT NULL CHECK (phase IN ('open', 'flapping', 'resolved')),
    opened_ms INTEGER NOT NULL,
    quiet_since_ms INTEGER,
    reopen_count INTEGER NOT NULL,
    -- Acknowledgment, as JSON.
    ack TEXT,
    -- Whether a notification was created.
    notified INTEGER NOT NULL CHECK (notified IN (0, 1))
) WITHOUT ROWID;
CREATE INDEX incident_time ON incident (opened_ms);

-- Alerts, firing and resolved.
CREATE TABLE alert (
    id BLOB PRIMARY KEY,
    incident BLOB NOT NULL,
    -- Rule, host and instance while the alert fires; NULL afterwards (unique: at most one firing alert per key).
    firing_key TEXT UNIQUE,
    rule BLOB NOT NULL,
    host BLOB NOT NULL,
    severity TEXT NOT NULL,
    fired_ms INTEGER NOT NULL,
    resolved_ms INTEGER,
    body TEXT NOT NULL,
    -- Top consumers and movers at fire time, as JSON.
    explanation TEXT
) WITHOUT ROWID;
CREATE INDEX alert_incident ON alert (incident);
CREATE INDEX alert_host ON alert (host, fired_ms);
CREATE INDEX alert_rule ON alert (rule, fired_ms);

-- Incident timeline: state changes and comments.
CREATE TABLE incident_event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    incident BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN (
        'fired', 'resolved', 'backfilled', 'silenced', 'silence_expired', 'acknowledged', 'unacknowledged',
        'ack_expired', 'incident_resolved', 'notified', 'notification_retrying', 'notification_failed', 'comment'
    )),
    actor TEXT NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX incident_event_incident ON incident_event (incident);

-- Notification outbox.
CREATE TABLE notification (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    channel BLOB NOT NULL,
    incident BLOB NOT NULL,
    reason TEXT NOT NULL,
    severity TEXT NOT NULL,
    -- Pending notifications with the same merge key are merged.
    merge_key TEXT UNIQUE,
    created_ms INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,
    -- Earliest time of the next attempt.
    retry_at_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'sent', 'failed', 'suppressed')),
    error TEXT,
    finished_ms INTEGER,
    body TEXT NOT NULL
);
CREATE INDEX notification_state ON notification (state, channel, due_ms);
CREATE INDEX notification_incident ON notification (incident);

-- Last-seen time of each host, shared between hubs.
CREATE TABLE host_last_seen (
    host BLOB PRIMARY KEY,
    last_seen_ms INTEGER NOT NULL,
    interval_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- Agentless hosts: address, credentials, schedule, last result.
CREATE TABLE server (
    id BLOB PRIMARY KEY,
    -- Configuration, as JSON.
    body TEXT NOT NULL,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    interval_ms INTEGER NOT NULL,
    encrypted_credentials BLOB,
    -- Incremented by every change of the configuration.
    version INTEGER NOT NULL,
    -- Pinned key: the server must present it.
    host_key TEXT,
    -- Different key that the server presented instead.
    offered_host_key TEXT,
    -- Cause for which collections stopped until the server is changed.
    blocked_reason TEXT,
    -- Counters from which the next collection derives rates.
    counter_state BLOB,
    -- Result of the last collection.
    last_run_ms INTEGER,
    last_duration_ms INTEGER,
    last_cause TEXT,
    last_error TEXT,
    last_success_ms INTEGER
) WITHOUT ROWID;

-- Collection history, connection tests included.
CREATE TABLE collection (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    server BLOB NOT NULL,
    finished_ms INTEGER NOT NULL,
    trigger TEXT NOT NULL CHECK (trigger IN ('scheduled', 'manual', 'on_demand', 'test')),
    attempt INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    cause TEXT,
    error TEXT,
    steps TEXT NOT NULL
);
CREATE INDEX collection_server ON collection (server, id);
CREATE INDEX collection_time ON collection (finished_ms);

-- Collection queue: jobs to run, and finished ones.
CREATE TABLE collection_job (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    server BLOB NOT NULL,
    -- Equals server until the job is finished; NULL afterwards (unique: at most one unfinished job per server).
    pending_key BLOB UNIQUE,
    trigger TEXT NOT NULL CHECK (trigger IN ('scheduled', 'manual')),
    state TEXT NOT NULL CHECK (state IN ('waiting', 'active', 'completed', 'failed')),
    run_at_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    -- Lease: holder, lease id, expiry.
    hub TEXT,
    lease_id BLOB,
    leased_until_ms INTEGER,
    started_ms INTEGER,
    finished_ms INTEGER,
    error TEXT
);
CREATE INDEX collection_job_state ON collection_job (state, run_at_ms);
CREATE INDEX collection_job_finished ON collection_job (finished_ms);

-- People who may log in.
CREATE TABLE account (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    -- argon2id in PHC form; none where only an issuer vouches for them.
    password TEXT,
    -- Secret of the second factor (RFC 6238), and the last step that was used of it.
    totp BLOB,
    totp_step INTEGER NOT NULL,
    -- Hashes of one-time codes for who lost the second factor.
    recovery TEXT NOT NULL,
    -- Who they are at an OpenID Connect issuer.
    subject TEXT UNIQUE,
    -- Only hosts with one of these tags; empty for all.
    host_tags TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    -- What was signed under an earlier number is void.
    epoch INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    login_ms INTEGER
) WITHOUT ROWID;

-- Browsers that are logged in, by the hash of what their cookie holds.
CREATE TABLE session (
    hash BLOB PRIMARY KEY,
    account BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL,
    address TEXT NOT NULL,
    browser TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX session_account ON session (account);

-- Tokens of scripts, by hash.
CREATE TABLE token (
    id BLOB PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    account BLOB NOT NULL,
    name TEXT NOT NULL,
    scope TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    used_ms INTEGER
) WITHOUT ROWID;

-- What lets agents in for the first time.
CREATE TABLE enrolment (
    id BLOB PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    -- Of the hosts that come in by it.
    tags TEXT NOT NULL,
    uses_left INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- Agents, each by the hash of its own secret.
CREATE TABLE agent (
    id BLOB PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    host BLOB NOT NULL,
    enrolment TEXT NOT NULL,
    address TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL,
    revoked_ms INTEGER
) WITHOUT ROWID;
CREATE INDEX agent_host ON agent (host);

-- Tags of hosts, as a list; a host may not have sent yet.
CREATE TABLE host_tag (
    id BLOB PRIMARY KEY,
    tags TEXT NOT NULL
) WITHOUT ROWID;

-- Who changed what.
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

-- Small things by name: signing keys, how often people were changed.
CREATE TABLE setting (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

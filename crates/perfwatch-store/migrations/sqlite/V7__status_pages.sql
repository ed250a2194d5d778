-- Public status pages. Each has a link with a secret token.
CREATE TABLE status_page (
    id BLOB PRIMARY KEY,
    token_hash BLOB NOT NULL UNIQUE,
    title TEXT NOT NULL,
    -- Groups of hosts and selected values, as JSON.
    body TEXT NOT NULL,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    expires_ms INTEGER NOT NULL,
    -- Account whose rights the page depends on, with the token epoch at the last change.
    owner BLOB NOT NULL,
    owner_epoch INTEGER NOT NULL,
    -- API token of the last change, which the page ends with. NULL for changes by a session.
    owner_token BLOB,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- Availability of the hosts of status pages on days in UTC that are over.
CREATE TABLE availability_day (
    host BLOB NOT NULL,
    -- Days since 1970.
    day INTEGER NOT NULL,
    up_ms INTEGER NOT NULL,
    down_ms INTEGER NOT NULL,
    maintenance_ms INTEGER NOT NULL,
    unknown_ms INTEGER NOT NULL,
    -- 0 while the host has sent nothing since the day: what it sends later may change the day.
    settled INTEGER NOT NULL CHECK (settled IN (0, 1)),
    PRIMARY KEY (host, day)
) WITHOUT ROWID;

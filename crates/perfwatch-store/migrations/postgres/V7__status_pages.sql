-- Public status pages. Each has a link with a secret token.
CREATE TABLE status_page (
    id BYTEA PRIMARY KEY,
    token_hash BYTEA NOT NULL UNIQUE,
    title TEXT NOT NULL,
    -- Groups of hosts and selected values, as JSON.
    body TEXT NOT NULL,
    enabled BIGINT NOT NULL CHECK (enabled IN (0, 1)),
    expires_ms BIGINT NOT NULL,
    -- Account whose rights the page depends on, with the token epoch at the last change.
    owner BYTEA NOT NULL,
    owner_epoch BIGINT NOT NULL,
    -- API token of the last change, which the page ends with. NULL for changes by a session.
    owner_token BYTEA,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL
);

-- Availability of the hosts of status pages on days in UTC that are over.
CREATE TABLE availability_day (
    host BYTEA NOT NULL,
    -- Days since 1970.
    day BIGINT NOT NULL,
    up_ms BIGINT NOT NULL,
    down_ms BIGINT NOT NULL,
    maintenance_ms BIGINT NOT NULL,
    unknown_ms BIGINT NOT NULL,
    -- 0 while the host has sent nothing since the day: what it sends later may change the day.
    settled BIGINT NOT NULL CHECK (settled IN (0, 1)),
    PRIMARY KEY (host, day)
);

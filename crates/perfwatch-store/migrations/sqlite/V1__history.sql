-- Hosts, for as long as anything of them is kept.
CREATE TABLE host (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    facts BLOB,
    first_seen_ms INTEGER NOT NULL,
    last_at_ms INTEGER,
    interval_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- What columns are, named by content. used_ms is renewed while snapshots of it arrive.
CREATE TABLE shape (
    id BLOB PRIMARY KEY,
    columns BLOB NOT NULL,
    used_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- Accepted snapshots in the order of their arrival at a hub, one row a commit.
CREATE TABLE head (
    arrival INTEGER PRIMARY KEY AUTOINCREMENT,
    hub TEXT NOT NULL,
    payload BLOB NOT NULL
);

-- Up to where a hub's head rows of a host are in blocks.
CREATE TABLE sealed (
    hub TEXT NOT NULL,
    host BLOB NOT NULL,
    arrival INTEGER NOT NULL,
    PRIMARY KEY (hub, host)
) WITHOUT ROWID;

-- Which ticks of a boot are in blocks, as ranges.
CREATE TABLE seen (
    host BLOB NOT NULL,
    boot BLOB NOT NULL,
    seqs TEXT NOT NULL,
    newest_ms INTEGER NOT NULL,
    PRIMARY KEY (host, boot)
) WITHOUT ROWID;

-- Blocks, a table a tier. The data comes last: what stands before it is read without it.
CREATE TABLE block_raw (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    host BLOB NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    shape BLOB NOT NULL,
    head_bytes INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX block_raw_host ON block_raw (host, first_ms, last_ms, bytes);
CREATE INDEX block_raw_time ON block_raw (last_ms);
CREATE INDEX block_raw_shape ON block_raw (shape);
CREATE TABLE block_minute (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    host BLOB NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    shape BLOB NOT NULL,
    head_bytes INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX block_minute_host ON block_minute (host, first_ms, last_ms, bytes);
CREATE INDEX block_minute_time ON block_minute (last_ms);
CREATE INDEX block_minute_shape ON block_minute (shape);
CREATE TABLE block_hour (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    host BLOB NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    shape BLOB NOT NULL,
    head_bytes INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX block_hour_host ON block_hour (host, first_ms, last_ms, bytes);
CREATE INDEX block_hour_time ON block_hour (last_ms);
CREATE INDEX block_hour_shape ON block_hour (shape);

-- Windows that took in rows since they were rolled up.
CREATE TABLE dirty (
    tier INTEGER NOT NULL,
    host BLOB NOT NULL,
    window_ms INTEGER NOT NULL,
    stamp INTEGER NOT NULL,
    PRIMARY KEY (tier, host, window_ms)
) WITHOUT ROWID;

-- Before these times a tier let go of its rows.
CREATE TABLE floor (
    tier INTEGER PRIMARY KEY,
    ms INTEGER NOT NULL
);
INSERT INTO floor (tier, ms) VALUES (0, 0), (1, 0), (2, 0);

-- What one hub at a time does.
CREATE TABLE lease (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- Fair shares of the storage, see docs/LIMITS.md.

-- Shapes that head rows of a hub use. A shape that neither a block nor this table names is deleted.
CREATE TABLE head_shape (
    hub TEXT NOT NULL,
    shape BLOB NOT NULL,
    PRIMARY KEY (hub, shape)
) WITHOUT ROWID;
INSERT INTO head_shape (hub, shape) SELECT h.hub, s.id FROM (SELECT DISTINCT hub FROM head) h, shape s;

-- Per tier and host above its share of the disk budget: rows of the host before this time have been deleted.
CREATE TABLE host_watermark (
    tier INTEGER NOT NULL,
    host BLOB NOT NULL,
    ms INTEGER NOT NULL,
    PRIMARY KEY (tier, host)
) WITHOUT ROWID;

-- The use of each host is computed from the indexes alone.
DROP INDEX block_raw_time;
DROP INDEX block_minute_time;
DROP INDEX block_hour_time;
CREATE INDEX block_raw_time ON block_raw (last_ms, bytes, host);
CREATE INDEX block_minute_time ON block_minute (last_ms, bytes, host);
CREATE INDEX block_hour_time ON block_hour (last_ms, bytes, host);
DROP INDEX block_raw_shape;
DROP INDEX block_minute_shape;
DROP INDEX block_hour_shape;
CREATE INDEX block_raw_shape ON block_raw (shape, host);
CREATE INDEX block_minute_shape ON block_minute (shape, host);
CREATE INDEX block_hour_shape ON block_hour (shape, host);

-- Shapes are deleted as soon as they are unused.
ALTER TABLE shape DROP COLUMN last_used_ms;

-- Host that a token enrolls again; NULL for tokens of new hosts.
ALTER TABLE enrollment_token ADD COLUMN host BLOB;
-- Token that an agent used, by its id; NULL for agents that enrolled before this column existed.
ALTER TABLE agent ADD COLUMN enrollment_token_id BLOB;
-- Hash of the secret with which an agent enrolled its host again.
ALTER TABLE agent ADD COLUMN previous_hash BLOB;

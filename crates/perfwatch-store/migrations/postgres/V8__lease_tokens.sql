-- Changes with every new holder of a lease, so that writes of an earlier holder are rejected.
ALTER TABLE lease ADD COLUMN token BIGINT NOT NULL DEFAULT 0;

-- As in PostgreSQL; the single hub of an embedded database holds all leases.
ALTER TABLE lease ADD COLUMN token INTEGER NOT NULL DEFAULT 0;

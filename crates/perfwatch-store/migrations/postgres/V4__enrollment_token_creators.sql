-- API token that created an enrollment token, which ends with it. NULL for those of sessions and of earlier
-- versions.
ALTER TABLE enrollment_token ADD COLUMN created_by_token BYTEA;

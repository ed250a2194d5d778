-- Account or token that created a host by sending for it, see docs/LIMITS.md. NULL for hosts of agents and of
-- SSH collection, and for those of earlier versions.
ALTER TABLE host ADD COLUMN created_by TEXT;

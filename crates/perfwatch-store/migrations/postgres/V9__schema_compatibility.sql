-- Oldest schema version of a program that can use the tables. A migration that removes or changes what earlier programs
-- use raises it, one release after the last program that needed it.
CREATE TABLE schema_compatibility (
    min_version BIGINT NOT NULL
);

INSERT INTO schema_compatibility VALUES (9);

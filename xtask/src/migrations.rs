//! Migrations of the database: a hub of the release before works on the tables after them.

use crate::source::TextFile;

/// Newest migration that no earlier program uses: the table `schema_compatibility` exists from then on.
const FIRST_COMPATIBLE_VERSION: u32 = 9;

/// Number of a migration in its file name.
fn version(path: &str) -> Option<u32> {
    let name = path.rsplit('/').next()?.strip_prefix('V')?.strip_suffix(".sql")?;
    name.split_once("__")?.0.parse().ok()
}

/// Statements in upper case, with single spaces and without comments.
fn statements(sql: &str) -> Vec<String> {
    let code: Vec<&str> =
        sql.lines().map(|line| line.split_once("--").map_or(line, |(code, _)| code)).collect();
    let code = code.join(" ").to_uppercase();
    let statement = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    code.split(';').map(statement).filter(|statement| !statement.is_empty()).collect()
}

/// Returns whether programs that do not know the statement work on the tables after it.
fn only_adds(statement: &str) -> bool {
    let adds_column = statement.starts_with("ALTER TABLE ") && statement.contains(" ADD COLUMN ");
    let is_optional = !statement.contains(" NOT NULL") || statement.contains(" DEFAULT ");
    let is_bound = ["UNIQUE", "REFERENCES", "PRIMARY KEY"].iter().any(|word| statement.contains(word));
    let adds = ["CREATE TABLE ", "CREATE INDEX ", "INSERT INTO ", "UPDATE "];
    adds.iter().any(|start| statement.starts_with(start)) || (adds_column && is_optional && !is_bound)
}

/// Statements of a migration that need another release first.
fn incompatible_statements(version: u32, sql: &str) -> Vec<String> {
    let statements = statements(sql);
    let contract = format!("UPDATE SCHEMA_COMPATIBILITY SET MIN_VERSION = {version}");
    if version <= FIRST_COMPATIBLE_VERSION || statements.contains(&contract) {
        return Vec::new();
    }
    statements.into_iter().filter(|statement| !only_adds(statement)).collect()
}

fn findings(files: &[TextFile]) -> Vec<String> {
    let of_file = |file: &TextFile| {
        let version = version(&file.path).unwrap_or(u32::MAX);
        let statements = incompatible_statements(version, &file.text).into_iter();
        statements.map(|statement| format!("{}: {statement}", file.path)).collect::<Vec<_>>()
    };
    files.iter().filter(|file| file.path.ends_with(".sql")).flat_map(of_file).collect()
}

#[test]
fn migrations_only_add_what_the_release_before_ignores() {
    let findings = findings(&crate::test_workspace().sql);
    assert!(
        findings.is_empty(),
        "hubs of two releases use the same tables during an upgrade; split the change in two releases, and let the \
         second `UPDATE schema_compatibility SET min_version = VERSION`:\n{}",
        findings.join("\n")
    );
}

#[test]
fn incompatible_statements_are_found() {
    let incompatible = |sql| incompatible_statements(10, sql).len();
    for sql in [
        "-- Notes.\nCREATE TABLE note (id BLOB PRIMARY KEY, body TEXT NOT NULL);\nCREATE INDEX note_body ON note (body);",
        "ALTER TABLE host ADD COLUMN note TEXT;",
        "ALTER TABLE host\n    ADD COLUMN weight INTEGER NOT NULL DEFAULT 0;",
        "DROP TABLE note; UPDATE schema_compatibility SET min_version = 10;",
    ] {
        assert_eq!(incompatible(sql), 0, "{sql}");
    }
    for sql in [
        "DROP TABLE note;",
        "ALTER TABLE host ADD COLUMN weight INTEGER NOT NULL;",
        "ALTER TABLE host ADD COLUMN owner BLOB REFERENCES account (id);",
        "ALTER TABLE host RENAME COLUMN name TO title;",
        "ALTER TABLE host DROP COLUMN facts;",
        "CREATE UNIQUE INDEX host_name ON host (name);",
        "DELETE FROM setting;",
        "DROP TABLE note; UPDATE schema_compatibility SET min_version = 9;",
    ] {
        assert_eq!(incompatible(sql), 1, "{sql}");
    }
    assert_eq!(incompatible_statements(9, "DROP TABLE note;"), Vec::<String>::new());
    assert_eq!(version("a/b/V10__notes.sql"), Some(10));
}

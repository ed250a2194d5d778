//! The schema is equal in both engines, and the list of tables contains all of it.

use crate::schema::{BackupMode, TABLES, backup_columns};
use crate::{PostgresStore, SqlValue, SqliteOptions, SqliteStore, Store};
use perfwatch_model::SystemClock;
use perfwatch_testkit::Postgres;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SQLITE_COLUMNS: &str = "SELECT t.name, c.name FROM sqlite_master t JOIN pragma_table_info(t.name) c \
     WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND t.name <> 'refinery_schema_history' \
     ORDER BY c.cid";
const POSTGRES_COLUMNS: &str = "SELECT table_name::text, column_name::text FROM information_schema.columns \
     WHERE table_schema = current_schema() AND table_name <> 'refinery_schema_history' \
     ORDER BY ordinal_position";
const SQLITE_INDEXES: &str =
    "SELECT tbl_name, name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL";
/// Excludes the indexes of primary keys and unique columns, which SQLite does not name.
const POSTGRES_INDEXES: &str = "SELECT c.relname::text, i.relname::text FROM pg_index x \
     JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid \
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema() AND NOT x.indisunique";
const SQLITE_BLOCK_KEY: &str = "SELECT t.name, c.name FROM sqlite_master t JOIN pragma_table_info(t.name) c \
     WHERE t.name LIKE 'block_%' AND t.type = 'table' AND c.pk > 0 ORDER BY c.pk";
const POSTGRES_BLOCK_KEY: &str = "SELECT table_name::text, column_name::text \
     FROM information_schema.key_column_usage \
     WHERE constraint_schema = current_schema() AND table_name LIKE 'block%' ORDER BY ordinal_position";

fn sqlite(folder: &std::path::Path) -> SqliteStore {
    let options = SqliteOptions { folder: folder.to_owned(), budget_bytes: 1 << 30 };
    SqliteStore::open(&options, Arc::new(SystemClock::new())).unwrap()
}

async fn postgres(server: &Postgres) -> PostgresStore {
    let url = server.database("schema");
    PostgresStore::connect(&url, "one".to_owned(), 1 << 30, Arc::new(SystemClock::new())).await.unwrap()
}

async fn names_by_table(store: &dyn Store, sql: &'static str) -> BTreeMap<String, Vec<String>> {
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in store.query(sql, Vec::new()).await.unwrap() {
        let [SqlValue::Text(table), SqlValue::Text(name)] = &row[..] else { panic!("{row:?}") };
        tables.entry(table.clone()).or_default().push(name.clone());
    }
    tables
}

fn sorted(tables: BTreeMap<String, Vec<String>>) -> BTreeMap<String, BTreeSet<String>> {
    tables.into_iter().map(|(table, names)| (table, names.into_iter().collect())).collect()
}

#[tokio::test]
async fn schema_is_equal_in_both_engines() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Postgres::start());
    let (sqlite, postgres) = (sqlite(folder.path()), postgres(&server).await);
    let columns = names_by_table(&sqlite, SQLITE_COLUMNS).await;
    assert_eq!(columns, names_by_table(&postgres, POSTGRES_COLUMNS).await);
    let listed: BTreeSet<&str> = TABLES.iter().map(|table| table.name).collect();
    assert_eq!(listed, columns.keys().map(String::as_str).collect(), "schema::TABLES");
    assert_eq!(
        sorted(names_by_table(&sqlite, SQLITE_INDEXES).await),
        sorted(names_by_table(&postgres, POSTGRES_INDEXES).await)
    );
    let block_keys = names_by_table(&sqlite, SQLITE_BLOCK_KEY).await;
    assert!(block_keys.len() == 3 && block_keys.values().all(|key| key == &["host", "first_ms", "id"]));
    assert_eq!(block_keys, names_by_table(&postgres, POSTGRES_BLOCK_KEY).await);
}

#[tokio::test]
async fn backup_omits_only_assigned_columns() {
    let folder = tempfile::tempdir().unwrap();
    let columns = names_by_table(&sqlite(folder.path()), SQLITE_COLUMNS).await;
    for table in TABLES.iter().filter(|table| table.backup != BackupMode::Excluded) {
        let all = &columns[table.name];
        let copied = backup_columns(table, all.clone());
        let omitted: Vec<&String> = all.iter().filter(|column| !copied.contains(column)).collect();
        let expected: &[&str] = match table.backup {
            BackupMode::Renumbered | BackupMode::Blocks => &["id"],
            BackupMode::Head | BackupMode::HeadShape | BackupMode::SealWatermark => &["hub"],
            _ => &[],
        };
        assert_eq!(omitted, expected, "{}", table.name);
    }
}

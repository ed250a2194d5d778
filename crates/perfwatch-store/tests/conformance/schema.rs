//! The schema is equal in both engines, the list of tables contains all of it, and programs of two releases can use it.

use crate::support::{connect, open_sqlite, postgres_server};
use perfwatch_store::schema::{BackupMode, TABLES, backup_columns};
use perfwatch_store::{PostgresStore, SqlValue, SqliteStore, Store};
use refinery::{Runner, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Newest migration of the previous release; see `RELEASE.md`.
const PREVIOUS_RELEASE_VERSION: u32 = 8;
/// Far above the migrations of this program.
const LATER_VERSION: u32 = 999;

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
    let (folder, server) = (tempfile::tempdir().unwrap(), postgres_server());
    let sqlite = open_sqlite(folder.path(), 1 << 30).unwrap();
    let postgres = connect(&server.database("schema"), "one").await.unwrap();
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
    let store = open_sqlite(folder.path(), 1 << 30).unwrap();
    let columns = names_by_table(&store, SQLITE_COLUMNS).await;
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

/// Statements of a later release that only add: a column to each table, and a table.
fn later_statements(min_version: u32) -> Vec<String> {
    let added = TABLES.iter().map(|table| format!("ALTER TABLE {} ADD COLUMN added_later TEXT", table.name));
    let history = format!(
        "INSERT INTO refinery_schema_history VALUES ({LATER_VERSION}, 'later', '2030-01-01T00:00:00Z', '1')"
    );
    let others = [
        "CREATE TABLE later (id INTEGER PRIMARY KEY)".to_owned(),
        history,
        format!("UPDATE schema_compatibility SET min_version = {min_version}"),
    ];
    added.chain(others).collect()
}

/// Migrations of an engine up to those of the previous release.
fn previous_release(engine: &str) -> Runner {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(engine);
    let migrations = refinery::load_sql_migrations(folder).unwrap();
    Runner::new(&migrations).set_target(Target::Version(PREVIOUS_RELEASE_VERSION.cast_signed()))
}

const HOST_NAMES: &str = "SELECT name, name FROM host";

#[tokio::test]
async fn sqlite_tables_of_the_releases_before_and_after_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("history/history.db");
    std::fs::create_dir(folder.path().join("history")).unwrap();
    let mut connection = rusqlite::Connection::open(&file).unwrap();
    previous_release("sqlite").run(&mut connection).unwrap();
    connection.execute_batch("INSERT INTO host VALUES (x'09', 'earlier', NULL, 1, NULL, 0, NULL)").unwrap();
    drop(connection);
    let store = open_sqlite(folder.path(), 1 << 30).unwrap();
    assert_eq!(names_by_table(&store, HOST_NAMES).await.len(), 1, "the host of the previous release");
    drop(store);
    std::fs::remove_file(&file).unwrap();

    let supported = SqliteStore::schema_versions;
    drop(open_sqlite(folder.path(), 1 << 30).unwrap());
    let version = supported(&folder.path().join("history")).unwrap().supported.cast_unsigned();
    let raise = |statements: &[String]| {
        let connection = rusqlite::Connection::open(&file).unwrap();
        statements.iter().for_each(|statement| connection.execute_batch(statement).unwrap());
    };
    raise(&later_statements(version));
    let store: Arc<dyn Store> = Arc::new(open_sqlite(folder.path(), 1 << 30).unwrap());
    crate::run_all_cases(&store).await;
    drop(store);
    raise(&later_statements(version + 1)[TABLES.len() + 2..]);
    let error = open_sqlite(folder.path(), 1 << 30).err().unwrap().to_string();
    assert!(error.contains("upgrade PerfWatch"), "{error}");
}

#[tokio::test]
async fn postgres_tables_of_the_releases_before_and_after_are_used() {
    let server = postgres_server();
    let url = server.database("releases");
    let (mut client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    previous_release("postgres").run_async(&mut client).await.unwrap();
    client
        .batch_execute("INSERT INTO host VALUES ('\\x09', 'earlier', NULL, 1, NULL, 0, NULL)")
        .await
        .unwrap();
    let store = connect(&url, "one").await.unwrap();
    assert_eq!(names_by_table(&store, HOST_NAMES).await.len(), 1, "the host of the previous release");
    server.query("releases", "DELETE FROM host");

    // The hub of the later release starts beside this hub, which then starts again.
    let clock = Arc::new(perfwatch_model::SystemClock::new());
    let version = PostgresStore::schema_versions(&url, clock).await.unwrap().supported.cast_unsigned();
    client.batch_execute(&later_statements(version).join(";")).await.unwrap();
    store.renew_leases().await.unwrap();
    store.release_leases().await.unwrap();
    let store: Arc<dyn Store> = Arc::new(connect(&url, "one").await.unwrap());
    crate::run_all_cases(&store).await;
    client.batch_execute(&later_statements(version + 1)[TABLES.len() + 2..].join(";")).await.unwrap();
    let error = connect(&url, "two").await.err().unwrap().to_string();
    assert!(error.contains("upgrade PerfWatch"), "{error}");
    drop(client);
    connection.await.unwrap().unwrap();
}

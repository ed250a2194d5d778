//! Checks the server's version and runs pending migrations.

use super::inner::PostgresInner;
use super::statements::{Statements as _, begin};
use crate::error::StoreError;
use crate::schema_versions::{MIN_PROGRAM_SQL, SchemaVersions};
use std::time::Duration;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

mod migrations {
    refinery::embed_migrations!("migrations/postgres");
}

/// Oldest supported server, as PostgreSQL's version number.
const MIN_SERVER_VERSION: i32 = 150_000;
/// Key of the advisory lock under which migrations run; any number that no other application uses.
const MIGRATION_LOCK: i64 = 0x7065_7266_7761_7463;
/// Time between attempts to lock.
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Rejects servers that are too old.
pub(super) async fn check_server(client: &Client) -> Result<(), StoreError> {
    let version: i32 =
        client.fetch_one("SELECT current_setting('server_version_num')::int4", &[]).await?.get(0);
    if version < MIN_SERVER_VERSION {
        return Err(StoreError::Rejected(format!(
            "PostgreSQL 15 or later is required; the server has version {}",
            version / 10_000
        )));
    }
    Ok(())
}

pub(super) async fn migrate(inner: &PostgresInner) -> Result<(), StoreError> {
    let mut object = inner.client().await?;
    check_server(&object).await?;
    // Hubs that start at the same time run the migrations one after another. The lock belongs to a transaction of a
    // second connection: a pooler in transaction mode would give a lock of the session to others. Hubs that wait for it
    // have no transaction: they would take up the connections of a pooler.
    let mut locking = inner.client().await?;
    loop {
        let lock = begin(&mut locking).await?;
        if lock.fetch_one("SELECT pg_try_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await?.get(0) {
            lock.batch_execute("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
            let result = migrate_locked(&mut object).await;
            lock.commit().await?;
            return result;
        }
        lock.rollback().await?;
        tokio::time::sleep(LOCK_RETRY_DELAY).await;
    }
}

/// Versions of the tables.
pub(super) async fn schema_versions(client: &Client) -> Result<SchemaVersions, StoreError> {
    let current = number(client, "SELECT max(version)::bigint FROM refinery_schema_history").await?;
    let min_program = number(client, MIN_PROGRAM_SQL).await?;
    Ok(SchemaVersions::new(current, min_program, &migrations::migrations::runner()))
}

/// Number of a query; `None` without its table.
async fn number(client: &Client, sql: &str) -> Result<Option<i32>, StoreError> {
    match client.fetch_opt(sql, &[]).await {
        Ok(row) => {
            let number = row.and_then(|row| row.get::<_, Option<i64>>(0));
            Ok(number.map(|number| i32::try_from(number).unwrap_or(i32::MAX)))
        }
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn migrate_locked(client: &mut Client) -> Result<(), StoreError> {
    if !schema_versions(client).await?.check_migration().map_err(StoreError::Rejected)? {
        return Ok(());
    }
    let report = migrations::migrations::runner().run_async(client).await;
    report.map(|_| ()).map_err(|error| StoreError::Rejected(error.to_string()))
}

//! Checks the server's version and runs pending migrations.

use super::error::unavailable;
use super::inner::PostgresInner;
use crate::error::StoreError;
use crate::schema_versions::SchemaVersions;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

mod migrations {
    refinery::embed_migrations!("migrations/postgres");
}

/// Oldest supported server, as PostgreSQL's version number.
const MIN_SERVER_VERSION: i32 = 150_000;
/// Key of the advisory lock under which migrations run; any number that no other application uses.
const MIGRATION_LOCK: i64 = 0x7065_7266_7761_7463;

/// Rejects servers that are too old.
pub(super) async fn check_server(client: &Client) -> Result<(), StoreError> {
    let version: i32 = client
        .query_one("SELECT current_setting('server_version_num')::int4", &[])
        .await
        .map_err(|error| unavailable(&error))?
        .get(0);
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
    let client: &mut Client = &mut object;
    check_server(client).await?;
    // Hubs that start at the same time run the migrations one after another.
    client
        .execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK])
        .await
        .map_err(|error| unavailable(&error))?;
    let result = migrate_locked(client).await;
    client
        .execute("SELECT pg_advisory_unlock($1)", &[&MIGRATION_LOCK])
        .await
        .map_err(|error| unavailable(&error))?;
    result
}

/// Versions of the tables.
pub(super) async fn schema_versions(client: &Client) -> Result<SchemaVersions, StoreError> {
    let current = match client.query_opt("SELECT max(version) FROM refinery_schema_history", &[]).await {
        Ok(row) => row.and_then(|row| row.get::<_, Option<i32>>(0)),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => None,
        Err(error) => return Err(unavailable(&error)),
    };
    Ok(SchemaVersions::new(current, &migrations::migrations::runner()))
}

async fn migrate_locked(client: &mut Client) -> Result<(), StoreError> {
    schema_versions(client).await?.reject_newer().map_err(StoreError::Rejected)?;
    let report = migrations::migrations::runner().run_async(client).await;
    report.map(|_| ()).map_err(|error| StoreError::Rejected(error.to_string()))
}

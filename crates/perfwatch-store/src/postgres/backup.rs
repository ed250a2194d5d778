//! Backup to and restore from a SQLite file. Both engines have the same tables and columns, so a backup also
//! moves an installation from one engine to the other.

use super::inner::PostgresInner;
use super::partitions;
use super::statements::{Parameter, Statements as _, begin, begin_read};
use crate::error::StoreError;
use crate::schema::{BackupMode, TABLES, TableInfo, backup_columns, backup_insert, backup_select, has_hub};
use crate::sql::{SqlValue, value_from_postgres};
use crate::sqlite;
use deadpool_postgres::Object;
use futures_util::TryStreamExt as _;
use rusqlite::Connection;
use std::path::Path;
use tokio::sync::mpsc;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Transaction};

/// Hub that restored head rows belong to in a SQLite file.
const SQLITE_HUB: &str = "local";

/// Message to the thread that writes the file.
enum BackupMessage {
    /// Rows of this statement follow.
    Statement(String),
    Row(Vec<SqlValue>),
}

fn copied_tables() -> impl Iterator<Item = &'static TableInfo> {
    TABLES.iter().filter(|table| table.backup != BackupMode::Excluded)
}

/// Writes messages into the file. Runs on its own thread, because SQLite blocks.
fn write_backup(to: &Path, mut messages: mpsc::Receiver<BackupMessage>) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| StoreError::Rejected(format!("{}: {error}", to.display()));
    let file = sqlite::new_file(to)?;
    file.execute_batch("BEGIN").map_err(failed)?;
    let mut sql = String::new();
    while let Some(message) = messages.blocking_recv() {
        match message {
            BackupMessage::Statement(next) => sql = next,
            BackupMessage::Row(values) => {
                let mut insert = file.prepare_cached(&sql).map_err(failed)?;
                insert.execute(rusqlite::params_from_iter(values)).map_err(failed)?;
            }
        }
    }
    file.execute_batch("COMMIT").map_err(failed)?;
    sqlite::strip_secrets(&file).map_err(failed)
}

pub(super) async fn backup(inner: &PostgresInner, to: &Path) -> Result<(), StoreError> {
    if to.exists() {
        return Err(StoreError::Rejected(format!("{} already exists", to.display())));
    }
    let client = inner.client().await?;
    let (messages, queue) = mpsc::channel(64);
    let path = to.to_owned();
    let writer = tokio::task::spawn_blocking(move || write_backup(&path, queue));
    let streamed = stream_tables(client, messages).await;
    let written = writer.await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let result = written.and(streamed.map_err(StoreError::from));
    if result.is_err() {
        // A partial backup must not be mistaken for a complete backup.
        let _ = std::fs::remove_file(to);
    }
    result
}

async fn columns(client: &Client, table: &TableInfo) -> Result<Vec<String>, Error> {
    let sql = "SELECT column_name::text FROM information_schema.columns \
         WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position";
    let rows = client.fetch_all(sql, &[&table.name]).await?;
    Ok(backup_columns(table, rows.iter().map(|row| row.get(0)).collect()))
}

async fn stream_tables(mut client: Object, messages: mpsc::Sender<BackupMessage>) -> Result<(), Error> {
    let mut tables = Vec::new();
    for table in copied_tables() {
        tables.push((table, columns(&client, table).await?));
    }
    let tx = begin_read(&mut client).await?;
    for (table, columns) in tables {
        let insert = BackupMessage::Statement(backup_insert(table, &columns, '?'));
        if messages.send(insert).await.is_err() {
            // The writer failed; its error is reported.
            return Ok(());
        }
        let parameters: [(&(dyn ToSql + Sync), Type); 0] = [];
        let mut rows = std::pin::pin!(tx.query_typed_raw(&backup_select(table, &columns), parameters).await?);
        while let Some(row) = rows.try_next().await? {
            let mut values: Vec<SqlValue> =
                (0..columns.len()).map(|column| value_from_postgres(&row, column)).collect();
            if has_hub(table) {
                values.push(SQLITE_HUB.into());
            }
            if messages.send(BackupMessage::Row(values)).await.is_err() {
                return Ok(());
            }
        }
    }
    tx.commit().await
}

pub(super) async fn restore(inner: &PostgresInner, from: &Path) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| StoreError::Rejected(format!("{}: {error}", from.display()));
    let file = sqlite::open_backup(from)?;
    let mut client = inner.client().await?;
    let has_data =
        "SELECT EXISTS (SELECT 1 FROM host) OR EXISTS (SELECT 1 FROM head) OR EXISTS (SELECT 1 FROM account)";
    if client.fetch_one(has_data, &[]).await?.get(0) {
        return Err(StoreError::Rejected("the database is not empty".to_owned()));
    }
    let sql = "SELECT coalesce(sum(bytes), 0), coalesce(max(last_ms) - min(first_ms), 0) FROM block_raw";
    let (bytes, span_ms) = file.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
    let widths = partitions::widths_for(inner, bytes, span_ms);
    let mut times =
        file.prepare("SELECT DISTINCT first_ms / 300000 * 300000 FROM block_raw").map_err(failed)?;
    let times: Vec<i64> =
        times.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(failed)?;
    for at_ms in times {
        partitions::ensure_partition(inner, &client, at_ms, Some(widths)).await?;
    }
    let tx = begin(&mut client).await?;
    for table in copied_tables() {
        restore_table(&tx, &file, table, &inner.hub, &failed).await?;
    }
    // Arrival numbers continue after the highest restored one.
    let next = "SELECT setval(pg_get_serial_sequence('head', 'arrival'), \
         greatest((SELECT coalesce(max(arrival), 0) FROM head), \
         (SELECT coalesce(max(arrival), 0) FROM seal_watermark)) + 1)";
    tx.run(next, &[]).await?;
    Ok(tx.commit().await?)
}

async fn restore_table(
    tx: &Transaction<'_>,
    file: &Connection,
    table: &TableInfo,
    hub: &str,
    failed: &impl Fn(rusqlite::Error) -> StoreError,
) -> Result<(), StoreError> {
    let columns = backup_columns(table, sqlite::columns(file, table.name).map_err(failed)?);
    let insert = backup_insert(table, &columns, '$');
    let mut statement = file.prepare(&backup_select(table, &columns)).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let mut values: Vec<SqlValue> = (0..columns.len())
            .map(|column| row.get_ref(column).map(SqlValue::from))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        if has_hub(table) {
            values.push(hub.into());
        }
        let values: Vec<&dyn Parameter> = values.iter().map(|value| value as _).collect();
        tx.run(&insert, &values).await?;
    }
    Ok(())
}

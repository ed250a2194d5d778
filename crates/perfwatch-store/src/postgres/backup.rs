//! Everything, as of one moment, into a SQLite file and back: the tables have the same names
//! and columns there, so a backup of one database is a way into the other.

use super::{PostgresInner, partitions, unavailable};
use crate::sql::SqlValue;
use crate::sqlite;
use crate::store::StoreError;
use deadpool_postgres::Object;
use futures_util::TryStreamExt as _;
use rusqlite::types::{Value, ValueRef};
use std::path::Path;
use tokio::sync::mpsc;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{IsolationLevel, Row};

/// What is copied, in an order that is right for both ways.
const TABLES: [(&str, &str); 26] = [
    ("host", "id, name, facts, first_seen_ms, last_at_ms, interval_ms"),
    ("shape", "id, columns, used_ms"),
    ("head", "arrival, payload"),
    ("sealed", "host, arrival"),
    ("seen", "host, boot, seqs, newest_ms"),
    ("block_raw", "host, first_ms, last_ms, shape, head_bytes, bytes, data"),
    ("block_minute", "host, first_ms, last_ms, shape, head_bytes, bytes, data"),
    ("block_hour", "host, first_ms, last_ms, shape, head_bytes, bytes, data"),
    ("dirty", "tier, host, window_ms, stamp"),
    (
        "account",
        "id, name, role, password, totp, totp_step, recovery, subject, host_tags, enabled, epoch, created_ms, login_ms",
    ),
    ("session", "hash, account, created_ms, seen_ms, address, browser"),
    ("token", "id, hash, account, name, scope, created_ms, expires_ms, used_ms"),
    ("enrolment", "id, hash, name, tags, uses_left, created_by, created_ms, expires_ms"),
    ("agent", "id, hash, host, enrolment, address, created_ms, seen_ms, revoked_ms"),
    ("host_tag", "id, tags"),
    // Numbered anew, in order.
    ("audit", "at_ms, actor, address, action, object, before, after"),
    ("setting", "name, value"),
    ("rule", "id, body"),
    ("channel", "id, body"),
    ("silence", "id, body"),
    ("incident", "id, key, live_key, title, severity, phase, opened_ms, calm_ms, reopened, ack, told"),
    ("alert", "id, incident, live_key, rule, host, severity, fired_ms, resolved_ms, body, explanation"),
    ("heard", "host, at_ms"),
    (
        "server",
        "id, body, enabled, interval_ms, secret, version, host_key, shown_key, refused, carried, last_ms, last_took_ms, last_cause, last_error, last_ok_ms",
    ),
    // What is to be looked at next is planned anew: the jobs stay.
    ("look", "server, at_ms, kind, tries, took_ms, cause, error, steps"),
    // What was on its way then is not said again by who is restored from it: the outbox stays.
    ("incident_event", "incident, at_ms, kind, actor, text"),
];

fn column_value(row: &Row, at: usize) -> Value {
    let column = row.columns()[at].type_();
    let value = if *column == Type::BYTEA {
        row.get::<_, Option<Vec<u8>>>(at).map(Value::Blob)
    } else if *column == Type::TEXT {
        row.get::<_, Option<String>>(at).map(Value::Text)
    } else {
        row.get::<_, Option<i64>>(at).map(Value::Integer)
    };
    value.unwrap_or(Value::Null)
}

/// What to ask: of hubs that share a host, the least that all have sealed. What is read back
/// twice then is known by its numbers.
fn select_statement(table: &str, columns: &str) -> String {
    match table {
        "sealed" => "SELECT host, min(arrival) FROM sealed GROUP BY host".to_owned(),
        "audit" | "incident_event" | "look" => format!("SELECT {columns} FROM {table} ORDER BY id"),
        _ => format!("SELECT {columns} FROM {table}"),
    }
}

/// What the thread that writes the file is told.
enum BackupMessage {
    /// Rows of this statement follow.
    Statement(String),
    Row(Vec<Value>),
}

/// Writes pieces as they come: SQLite wants a thread that may wait.
fn write_backup(to: &Path, mut pieces: mpsc::Receiver<BackupMessage>) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| StoreError::Rejected(format!("{}: {error}", to.display()));
    let file = sqlite::new_file(to)?;
    file.execute_batch("BEGIN").map_err(failed)?;
    let mut sql = String::new();
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
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

pub(super) async fn backup(shared: &PostgresInner, to: &Path) -> Result<(), StoreError> {
    if to.exists() {
        return Err(StoreError::Rejected(format!("{} is there already", to.display())));
    }
    let client = shared.client().await?;
    let (pieces, queue) = mpsc::channel(64);
    let path = to.to_owned();
    let file = tokio::task::spawn_blocking(move || write_backup(&path, queue));
    let sent = stream_tables(client, pieces).await;
    let written = file.await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let done = written.and(sent.map_err(|error| unavailable(&error)));
    if done.is_err() {
        // Half a backup looks like one.
        let _ = std::fs::remove_file(to);
    }
    done
}

async fn stream_tables(
    mut client: Object,
    pieces: mpsc::Sender<BackupMessage>,
) -> Result<(), tokio_postgres::Error> {
    let tx = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    for (table, columns) in TABLES {
        let count = columns.split(", ").count();
        let marks: Vec<String> = (1..=count).map(|at| format!("?{at}")).collect();
        let (names, marks) = match table {
            "head" | "sealed" => (format!("{columns}, hub"), format!("{}, 'local'", marks.join(", "))),
            _ => (columns.to_owned(), marks.join(", ")),
        };
        if pieces
            .send(BackupMessage::Statement(format!("INSERT INTO {table} ({names}) VALUES ({marks})")))
            .await
            .is_err()
        {
            return Ok(());
        }
        let none: [&(dyn ToSql + Sync); 0] = [];
        let mut rows = std::pin::pin!(tx.query_raw(&select_statement(table, columns), none).await?);
        while let Some(row) = rows.try_next().await? {
            let values = (0..count).map(|at| column_value(&row, at)).collect();
            if pieces.send(BackupMessage::Row(values)).await.is_err() {
                return Ok(());
            }
        }
    }
    let floors = super::read::retention_watermarks(&tx, "").await?;
    let _ =
        pieces.send(BackupMessage::Statement("UPDATE floor SET ms = ?2 WHERE tier = ?1".to_owned())).await;
    for (tier, ms) in floors.ms.iter().enumerate() {
        let tier = i64::try_from(tier).unwrap_or_default();
        let _ = pieces.send(BackupMessage::Row(vec![Value::Integer(tier), Value::Integer(*ms)])).await;
    }
    tx.commit().await
}

pub(super) async fn restore(shared: &PostgresInner, from: &Path) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| StoreError::Rejected(format!("{}: {error}", from.display()));
    let file = sqlite::open_backup(from)?;
    let mut client = shared.client().await?;
    let pg = |error: tokio_postgres::Error| unavailable(&error);
    let there =
        "SELECT EXISTS (SELECT 1 FROM host) OR EXISTS (SELECT 1 FROM head) OR EXISTS (SELECT 1 FROM account)";
    if client.query_one(there, &[]).await.map_err(pg)?.get(0) {
        return Err(StoreError::Rejected(
            "the database has history already; restore into an empty one".to_owned(),
        ));
    }
    let sql = "SELECT coalesce(sum(bytes), 0), coalesce(max(last_ms) - min(first_ms), 0) FROM block_raw";
    let (bytes, span_ms) = file.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
    let widths = partitions::widths_for(shared, bytes, span_ms);
    let mut times =
        file.prepare("SELECT DISTINCT first_ms / 300000 * 300000 FROM block_raw").map_err(failed)?;
    let times: Vec<i64> =
        times.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(failed)?;
    for at_ms in times {
        partitions::ensure_partition(shared, &client, at_ms, Some(widths)).await.map_err(pg)?;
    }
    let tx = client.transaction().await.map_err(pg)?;
    for (table, columns) in TABLES {
        let count = columns.split(", ").count();
        let marks: Vec<String> = (1..=count).map(|at| format!("${at}")).collect();
        let (names, marks) = match table {
            "head" | "sealed" => (format!("{columns}, hub"), format!("{}, ${}", marks.join(", "), count + 1)),
            _ => (columns.to_owned(), marks.join(", ")),
        };
        let insert =
            tx.prepare(&format!("INSERT INTO {table} ({names}) VALUES ({marks})")).await.map_err(pg)?;
        let mut statement = file.prepare(&select_statement(table, columns)).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let mut values: Vec<Box<dyn ToSql + Sync + Send>> = Vec::with_capacity(count + 1);
            for at in 0..count {
                values.push(match row.get_ref(at).map_err(failed)? {
                    ValueRef::Integer(number) => Box::new(number),
                    ValueRef::Text(text) => Box::new(String::from_utf8_lossy(text).into_owned()),
                    ValueRef::Blob(bytes) => Box::new(bytes.to_vec()),
                    _ => Box::new(SqlValue::Null),
                });
            }
            if names.ends_with(", hub") {
                values.push(Box::new(shared.hub.clone()));
            }
            let values: Vec<&(dyn ToSql + Sync)> =
                values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
            tx.execute(&insert, &values).await.map_err(pg)?;
        }
    }
    // Numbers go on after the largest that came along.
    let next = "SELECT setval(pg_get_serial_sequence('head', 'arrival'), \
         greatest((SELECT coalesce(max(arrival), 0) FROM head), (SELECT coalesce(max(arrival), 0) FROM sealed)) + 1)";
    tx.execute(next, &[]).await.map_err(pg)?;
    for tier in 0..3i64 {
        let ms: i64 = file
            .query_row("SELECT ms FROM floor WHERE tier = ?1", [tier], |row| row.get(0))
            .map_err(failed)?;
        tx.execute("UPDATE floor SET ms = $2 WHERE tier = $1", &[&tier, &ms]).await.map_err(pg)?;
    }
    tx.commit().await.map_err(pg)
}

//! Messages on their way out: written in the commit of what they tell, gone when they are.

use crate::sql::{RowReader, SqlStatement, SqlValue};
use crate::store::{Store, StoreError};
use uuid::Uuid;

/// A message that waits, or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotificationRow {
    /// Its number; given when it is written.
    pub id: i64,
    /// By which channel.
    pub channel: Uuid,
    /// Of which incident.
    pub incident: Uuid,
    /// What happened.
    pub reason: String,
    /// How bad.
    pub severity: String,
    /// When it was written, milliseconds since 1970.
    pub created_ms: i64,
    /// When it is to go out.
    pub due_ms: i64,
    /// Not tried before this.
    pub retry_at_ms: i64,
    /// How often it was tried.
    pub attempts: i64,
    /// `waiting`, `sent`, `dead`, `skipped`.
    pub state: String,
    /// Why it did not go out.
    pub error: Option<String>,
    /// When it was sent, or given up.
    pub finished_ms: Option<i64>,
    /// What it says, as a record.
    pub body: String,
}

/// Which messages, newest first.
#[derive(Debug, Clone, Default)]
pub struct NotificationFilter {
    /// Of one channel.
    pub channel: Option<Uuid>,
    /// Of one incident.
    pub incident: Option<Uuid>,
    /// In this state.
    pub state: Option<String>,
    /// How many.
    pub limit: i64,
}

/// The messages.
#[derive(Debug)]
pub struct Outbox;

impl NotificationRow {
    /// On its way. Of those with one merge key, one waits and says what the newest does.
    pub fn enqueue(&self, merge_key: Option<&str>) -> SqlStatement {
        let sql = "INSERT INTO outbox (channel, incident, notice, severity, merge_key, created_ms, due_ms, next_ms, tries, state, body) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 'waiting', $9) \
             ON CONFLICT (merge_key) DO UPDATE SET body = excluded.body, severity = excluded.severity";
        let cells = [
            self.channel.into(),
            self.incident.into(),
            self.reason.as_str().into(),
            self.severity.as_str().into(),
            merge_key.into(),
            self.created_ms.into(),
            self.due_ms.into(),
            self.retry_at_ms.into(),
            self.body.as_str().into(),
        ];
        SqlStatement::new(sql, cells)
    }

    fn read(row: Vec<SqlValue>) -> Result<Self, StoreError> {
        let mut cells = RowReader::new(row);
        Ok(Self {
            id: cells.int()?,
            channel: cells.id()?,
            incident: cells.id()?,
            reason: cells.text()?,
            severity: cells.text()?,
            created_ms: cells.int()?,
            due_ms: cells.int()?,
            retry_at_ms: cells.int()?,
            attempts: cells.int()?,
            state: cells.text()?,
            error: cells.opt_text()?,
            finished_ms: cells.opt_int()?,
            body: cells.text()?,
        })
    }
}

impl Outbox {
    /// Channels that something is due for.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn channels_due(store: &dyn Store, now_ms: i64) -> Result<Vec<Uuid>, StoreError> {
        let sql = "SELECT DISTINCT channel FROM outbox WHERE state = 'waiting' AND due_ms <= $1";
        let rows = store.query(sql, vec![now_ms.into()]).await?;
        rows.into_iter().map(|row| RowReader::new(row).id()).collect()
    }

    /// What is due for a channel and as bad as this, in the order in which it is to go out.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn due(
        store: &dyn Store,
        channel: Uuid,
        severities: [&str; 3],
        now_ms: i64,
        limit: i64,
    ) -> Result<Vec<NotificationRow>, StoreError> {
        let sql = "SELECT id, channel, incident, notice, severity, created_ms, due_ms, next_ms, tries, state, error, done_ms, body \
             FROM outbox WHERE state = 'waiting' AND channel = $1 AND due_ms <= $2 AND severity IN ($3, $4, $5) \
             ORDER BY due_ms, id LIMIT $6";
        let [one, two, three] = severities.map(SqlValue::from);
        let cells = vec![channel.into(), now_ms.into(), one, two, three, limit.into()];
        store.query(sql, cells).await?.into_iter().map(NotificationRow::read).collect()
    }

    /// Takes in nothing more: it is going out as it is.
    pub fn mark_sending(id: i64) -> SqlStatement {
        SqlStatement::new("UPDATE outbox SET merge_key = NULL WHERE id = $1", [id.into()])
    }

    /// What a filter lets through, newest first.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn list(
        store: &dyn Store,
        filter: NotificationFilter,
    ) -> Result<Vec<NotificationRow>, StoreError> {
        let sql = "SELECT id, channel, incident, notice, severity, created_ms, due_ms, next_ms, tries, state, error, done_ms, body \
             FROM outbox WHERE (channel = $1 OR $1 IS NULL) AND (incident = $2 OR $2 IS NULL) \
             AND (state = $3 OR $3 IS NULL) ORDER BY id DESC LIMIT $4";
        let cells = vec![
            filter.channel.into(),
            filter.incident.into(),
            filter.state.as_deref().into(),
            filter.limit.into(),
        ];
        store.query(sql, cells).await?.into_iter().map(NotificationRow::read).collect()
    }

    /// Whether a channel was told of an incident, or will be before what comes after.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn was_notified(store: &dyn Store, channel: Uuid, incident: Uuid) -> Result<bool, StoreError> {
        let sql = "SELECT count(*) FROM outbox WHERE channel = $1 AND incident = $2 AND state = 'sent'";
        let rows = store.query(sql, vec![channel.into(), incident.into()]).await?;
        Ok(rows.into_iter().next().map(|row| RowReader::new(row).int()).transpose()?.unwrap_or_default() > 0)
    }

    /// How many were given up since a time.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn failed_since(store: &dyn Store, since_ms: i64) -> Result<i64, StoreError> {
        let sql = "SELECT count(*) FROM outbox WHERE state = 'dead' AND done_ms >= $1";
        let rows = store.query(sql, vec![since_ms.into()]).await?;
        Ok(rows.into_iter().next().map(|row| RowReader::new(row).int()).transpose()?.unwrap_or_default())
    }

    /// It is no longer on its way: `sent`, `dead` or `skipped`; a conflict where that is known.
    pub fn finish(id: i64, state: &str, error: Option<&str>, now_ms: i64) -> SqlStatement {
        let sql = "UPDATE outbox SET state = $2, error = $3, done_ms = $4, tries = tries + 1, merge_key = NULL \
             WHERE id = $1 AND state = 'waiting'";
        SqlStatement::new(sql, [id.into(), state.into(), error.into(), now_ms.into()]).require_row()
    }

    /// It did not go out, and is tried again.
    pub fn retry_at(id: i64, next_ms: i64, error: &str) -> SqlStatement {
        let sql = "UPDATE outbox SET tries = tries + 1, next_ms = $2, error = $3 WHERE id = $1 AND state = 'waiting'";
        SqlStatement::new(sql, [id.into(), next_ms.into(), error.into()])
    }

    /// One that was given up is on its way again.
    pub fn requeue(id: i64, now_ms: i64) -> SqlStatement {
        let sql = "UPDATE outbox SET state = 'waiting', tries = 0, due_ms = $2, next_ms = $2, done_ms = NULL \
             WHERE id = $1 AND state = 'dead'";
        SqlStatement::new(sql, [id.into(), now_ms.into()]).require_row()
    }

    /// What waits for a channel that is gone waits no more.
    pub fn suppress_for_channel(channel: Uuid, now_ms: i64) -> SqlStatement {
        let sql = "UPDATE outbox SET state = 'skipped', done_ms = $2, merge_key = NULL, error = 'the channel was removed' \
             WHERE channel = $1 AND state = 'waiting'";
        SqlStatement::new(sql, [channel.into(), now_ms.into()])
    }
}

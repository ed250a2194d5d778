//! Notification outbox: notifications are committed with the change that causes them and delivered at least
//! once.

use crate::error::StoreError;
use crate::sql::{RowReader, SqlStatement, SqlValue, text_enum};
use crate::store::Store;
use crate::transaction::Transaction;
use uuid::Uuid;

text_enum! {
    /// State of a notification.
    pub enum NotificationState {
        /// Waits for its time, its channel or a retry.
        Pending = "pending",
        /// Delivered to the channel.
        Sent = "sent",
        /// Failed permanently; a user may requeue it.
        Failed = "failed",
        /// Skipped because it is silenced, outdated or without a channel.
        Suppressed = "suppressed",
    }
}

/// Notification of an incident to a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotificationRow {
    /// Number of the notification, assigned by the database.
    pub id: i64,
    /// Channel that receives the notification.
    pub channel: Uuid,
    /// Incident the notification is about.
    pub incident: Uuid,
    /// Reason: `opened`, `updated`, `reopened`, `reminder`, `resolved` or `test`.
    pub reason: String,
    /// Severity of the incident.
    pub severity: String,
    /// Time of creation, Unix milliseconds.
    pub created_ms: i64,
    /// Time at which the notification becomes due, Unix milliseconds.
    pub due_ms: i64,
    /// Earliest time of the next attempt, Unix milliseconds.
    pub retry_at_ms: i64,
    /// Number of delivery attempts.
    pub attempts: i64,
    /// State of the notification.
    pub state: NotificationState,
    /// Error of the last attempt, or the reason of the suppression.
    pub error: Option<String>,
    /// Time at which the notification was sent, failed or suppressed; Unix milliseconds.
    pub finished_ms: Option<i64>,
    /// Content of the notification, as JSON.
    pub body: String,
}

/// Filter and limit of [`Outbox::list`].
#[derive(Debug, Clone, Default)]
pub struct NotificationFilter {
    /// Notifications of this channel.
    pub channel: Option<Uuid>,
    /// Notifications of this incident.
    pub incident: Option<Uuid>,
    /// Notifications in this state.
    pub state: Option<NotificationState>,
    /// Notifications with a smaller number than this.
    pub before_id: Option<i64>,
    /// Maximum number of notifications.
    pub limit: i64,
}

/// Number of notifications of a channel in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotificationCount {
    /// Channel of the notifications.
    pub channel: Uuid,
    /// State of the notifications.
    pub state: NotificationState,
    /// Number of notifications.
    pub count: i64,
    /// Number of these whose last attempt had an error.
    pub error_count: i64,
}

/// Statement that reads notifications, with the columns in the order of [`NotificationRow::read`].
macro_rules! select_notifications {
    ($where:literal) => {
        concat!(
            "SELECT id, channel, incident, reason, severity, created_ms, due_ms, retry_at_ms, attempts, \
             state, error, finished_ms, body FROM notification WHERE ",
            $where
        )
    };
}

impl NotificationRow {
    fn read(row: Vec<SqlValue>) -> Result<Self, StoreError> {
        let mut row = RowReader::new(row);
        Ok(Self {
            id: row.int()?,
            channel: row.id()?,
            incident: row.id()?,
            reason: row.text()?,
            severity: row.text()?,
            created_ms: row.int()?,
            due_ms: row.int()?,
            retry_at_ms: row.int()?,
            attempts: row.int()?,
            state: row.parsed(NotificationState::parse)?,
            error: row.opt_text()?,
            finished_ms: row.opt_int()?,
            body: row.text()?,
        })
    }
}

/// The transactional queue of notifications.
#[derive(Debug)]
pub struct Outbox;

impl Outbox {
    /// Lists channels that have due notifications.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn channels_due(store: &dyn Store, now_ms: i64) -> Result<Vec<Uuid>, StoreError> {
        let sql = "SELECT DISTINCT channel FROM notification WHERE state = 'pending' AND due_ms <= $1";
        let rows = store.query(sql, vec![now_ms.into()]).await?;
        rows.into_iter().map(|row| RowReader::new(row).id()).collect()
    }

    /// Lists due notifications of a channel with any of the severities, in the order of delivery.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn due(
        store: &dyn Store,
        channel: Uuid,
        severities: [&str; 3],
        now_ms: i64,
        limit: i64,
    ) -> Result<Vec<NotificationRow>, StoreError> {
        let sql = select_notifications!(
            "state = 'pending' AND channel = $1 AND due_ms <= $2 AND severity IN ($3, $4, $5) \
             ORDER BY due_ms, id LIMIT $6"
        );
        let [first, second, third] = severities.map(SqlValue::from);
        let values = vec![channel.into(), now_ms.into(), first, second, third, limit.into()];
        store.query(sql, values).await?.into_iter().map(NotificationRow::read).collect()
    }

    /// Lists notifications that match a filter, newest first.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(
        store: &dyn Store,
        filter: NotificationFilter,
    ) -> Result<Vec<NotificationRow>, StoreError> {
        let sql = select_notifications!(
            "(channel = $1 OR $1 IS NULL) AND (incident = $2 OR $2 IS NULL) AND (state = $3 OR $3 IS NULL) \
             AND id < $4 ORDER BY id DESC LIMIT $5"
        );
        let before_id = filter.before_id.unwrap_or(i64::MAX);
        let values = vec![
            filter.channel.into(),
            filter.incident.into(),
            filter.state.into(),
            before_id.into(),
            filter.limit.into(),
        ];
        store.query(sql, values).await?.into_iter().map(NotificationRow::read).collect()
    }

    /// Returns whether a channel received a notification of an incident.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn was_notified(store: &dyn Store, channel: Uuid, incident: Uuid) -> Result<bool, StoreError> {
        let sql = "SELECT count(*) FROM notification WHERE channel = $1 AND incident = $2 AND state = 'sent'";
        let rows = store.query(sql, vec![channel.into(), incident.into()]).await?;
        Ok(rows.into_iter().next().map(|row| RowReader::new(row).int()).transpose()?.unwrap_or_default() > 0)
    }

    /// Counts the pending notifications by channel, and by state those that were finished since a time.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn count(store: &dyn Store, since_ms: i64) -> Result<Vec<NotificationCount>, StoreError> {
        let sql = "SELECT channel, state, count(*), count(error) FROM notification \
             WHERE state = 'pending' OR finished_ms >= $1 GROUP BY channel, state ORDER BY channel, state";
        let read = |row| {
            let mut row = RowReader::new(row);
            let (channel, state) = (row.id()?, row.parsed(NotificationState::parse)?);
            Ok(NotificationCount { channel, state, count: row.int()?, error_count: row.int()? })
        };
        store.query(sql, vec![since_ms.into()]).await?.into_iter().map(read).collect()
    }

    /// Number of notifications that failed permanently since a time.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn failed_since(store: &dyn Store, since_ms: i64) -> Result<i64, StoreError> {
        let sql = "SELECT count(*) FROM notification WHERE state = 'failed' AND finished_ms >= $1";
        let rows = store.query(sql, vec![since_ms.into()]).await?;
        Ok(rows.into_iter().next().map(|row| RowReader::new(row).int()).transpose()?.unwrap_or_default())
    }

    /// Number of notifications that are not delivered yet.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn count_pending(store: &dyn Store) -> Result<i64, StoreError> {
        let sql = "SELECT count(*) FROM notification WHERE state = 'pending'";
        let rows = store.query(sql, Vec::new()).await?;
        Ok(rows.into_iter().next().map(|row| RowReader::new(row).int()).transpose()?.unwrap_or_default())
    }
}

/// Writes of notifications, added to a [`Transaction`].
#[derive(Debug)]
pub struct NotificationRepository<'a>(&'a mut Transaction);

impl NotificationRepository<'_> {
    /// Adds a pending notification. Of pending notifications with the same merge key, only the content of the
    /// newest is kept.
    pub fn enqueue(&mut self, notification: &NotificationRow, merge_key: Option<&str>) {
        let sql = "INSERT INTO notification \
             (channel, incident, reason, severity, merge_key, created_ms, due_ms, retry_at_ms, attempts, \
             state, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 'pending', $9) \
             ON CONFLICT (merge_key) DO UPDATE SET body = excluded.body, severity = excluded.severity";
        let values = [
            notification.channel.into(),
            notification.incident.into(),
            notification.reason.as_str().into(),
            notification.severity.as_str().into(),
            merge_key.into(),
            notification.created_ms.into(),
            notification.due_ms.into(),
            notification.retry_at_ms.into(),
            notification.body.as_str().into(),
        ];
        self.0.push(SqlStatement::new(sql, values));
    }

    /// Excludes a notification from merging because its delivery begins.
    pub fn mark_sending(&mut self, id: i64) {
        self.0.push(SqlStatement::new("UPDATE notification SET merge_key = NULL WHERE id = $1", [id.into()]));
    }

    /// Finishes a pending notification; a conflict if it is not pending any more.
    pub fn finish(&mut self, id: i64, state: NotificationState, error: Option<&str>, now_ms: i64) {
        let sql = "UPDATE notification SET state = $2, error = $3, finished_ms = $4, \
             attempts = attempts + 1, merge_key = NULL WHERE id = $1 AND state = 'pending'";
        self.0.push(
            SqlStatement::new(sql, [id.into(), state.into(), error.into(), now_ms.into()]).require_row(),
        );
    }

    /// Replaces the content of a notification, which contains the results of its recipients.
    pub fn set_body(&mut self, id: i64, body: &str) {
        let sql = "UPDATE notification SET body = $2 WHERE id = $1";
        self.0.push(SqlStatement::new(sql, [id.into(), body.into()]));
    }

    /// Schedules the next attempt after a failed delivery.
    pub fn retry_at(&mut self, id: i64, retry_at_ms: i64, error: &str) {
        let sql = "UPDATE notification SET attempts = attempts + 1, retry_at_ms = $2, error = $3 \
             WHERE id = $1 AND state = 'pending'";
        self.0.push(SqlStatement::new(sql, [id.into(), retry_at_ms.into(), error.into()]));
    }

    /// Schedules the next attempt after a failed delivery, without blocking the notifications that are due
    /// before it.
    pub fn postpone(&mut self, id: i64, due_ms: i64, error: &str) {
        let sql = "UPDATE notification SET attempts = attempts + 1, due_ms = $2, retry_at_ms = $2, error = $3 \
             WHERE id = $1 AND state = 'pending'";
        self.0.push(SqlStatement::new(sql, [id.into(), due_ms.into(), error.into()]));
    }

    /// Makes a failed notification pending again; a conflict if it is not failed.
    pub fn requeue(&mut self, id: i64, now_ms: i64) {
        let sql = "UPDATE notification SET state = 'pending', attempts = 0, due_ms = $2, retry_at_ms = $2, \
             finished_ms = NULL WHERE id = $1 AND state = 'failed'";
        self.0.push(SqlStatement::new(sql, [id.into(), now_ms.into()]).require_row());
    }

    /// Suppresses the pending notifications of a deleted channel.
    pub fn suppress_for_channel(&mut self, channel: Uuid, now_ms: i64) {
        let sql = "UPDATE notification SET state = 'suppressed', finished_ms = $2, merge_key = NULL, \
             error = 'the channel was deleted' WHERE channel = $1 AND state = 'pending'";
        self.0.push(SqlStatement::new(sql, [channel.into(), now_ms.into()]));
    }
}

impl Transaction {
    /// Repository of notifications.
    pub fn notifications(&mut self) -> NotificationRepository<'_> {
        NotificationRepository(self)
    }
}

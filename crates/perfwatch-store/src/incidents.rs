//! Incidents with their alerts and timeline.

mod events;

pub use events::{IncidentEventRepository, IncidentEventRow};

use crate::error::StoreError;
use crate::sql::{RowReader, SqlStatement, SqlValue, like_pattern, text_enum};
use crate::store::Store;
use crate::transaction::Transaction;
use std::sync::LazyLock;
use uuid::Uuid;

const DAY_MS: i64 = 86_400_000;

text_enum! {
    /// Phase of a stored incident.
    pub enum IncidentPhase {
        /// Alerts are firing.
        Open = "open",
        /// No alert fires, but the incident reopened repeatedly and is held open.
        Flapping = "flapping",
        /// All alerts are resolved.
        Resolved = "resolved",
    }
}

text_enum! {
    /// Kind of an entry in an incident's timeline.
    pub enum IncidentEventKind {
        /// An alert began to fire.
        Fired = "fired",
        /// An alert was resolved.
        Resolved = "resolved",
        /// An alert fired and ended in backfilled data.
        Backfilled = "backfilled",
        /// A silence began to suppress notifications.
        Silenced = "silenced",
        /// The silence ended while alerts still fire.
        SilenceExpired = "silence_expired",
        /// A user acknowledged the incident.
        Acknowledged = "acknowledged",
        /// A user withdrew the acknowledgment.
        Unacknowledged = "unacknowledged",
        /// The acknowledgment of a user expired.
        AckExpired = "ack_expired",
        /// A flapping incident stayed quiet and was resolved.
        IncidentResolved = "incident_resolved",
        /// A notification was sent.
        Notified = "notified",
        /// The first delivery of a notification failed and is retried.
        NotificationRetrying = "notification_retrying",
        /// The delivery of a notification failed permanently.
        NotificationFailed = "notification_failed",
        /// A user commented on the incident.
        Comment = "comment",
    }
}

/// Incident as the database stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncidentRow {
    /// Stable identifier of the incident (UUIDv7).
    pub id: Uuid,
    /// Grouping value that the incident's alerts share.
    pub group_key: String,
    /// Short description of the alerts.
    pub title: String,
    /// Highest severity of the alerts.
    pub severity: String,
    /// Phase of the incident.
    pub phase: IncidentPhase,
    /// Time at which the first alert fired, Unix milliseconds.
    pub opened_ms: i64,
    /// Time since which no alert fires, Unix milliseconds.
    pub quiet_since_ms: Option<i64>,
    /// Number of times the incident reopened.
    pub reopen_count: i64,
    /// Acknowledgment of a user, as JSON.
    pub ack: Option<String>,
    /// True if a notification was created.
    pub notified: bool,
}

/// Filter and page of [`IncidentRow::list`].
#[derive(Debug, Clone, Default)]
pub struct IncidentFilter {
    /// Incidents with an alert of this host.
    pub host: Option<Uuid>,
    /// Incidents with an alert of this rule.
    pub rule: Option<Uuid>,
    /// Incidents of this severity.
    pub severity: Option<String>,
    /// Incidents in this state: `open`, `acknowledged` or `resolved`.
    pub state: Option<String>,
    /// Text contained in the title, regardless of case.
    pub text: String,
    /// Earliest time of opening, inclusive; Unix milliseconds.
    pub from_ms: i64,
    /// Latest time of opening, exclusive; Unix milliseconds.
    pub to_ms: i64,
    /// Includes incidents that opened exactly at `to_ms` and have a lower id: the next page.
    pub to_id: Option<Uuid>,
    /// Maximum number of incidents.
    pub limit: i64,
    /// Only incidents with an alert of a host with any of these tags, as if there were no alerts of other
    /// hosts; empty for all incidents. Severity, state and text are then not filtered.
    pub host_tags: Vec<String>,
}

/// Maximum number of tags of [`IncidentFilter::host_tags`].
const MAX_HOST_TAGS: usize = 32;

/// Statement that lists incidents of hosts with any of [`MAX_HOST_TAGS`] tags.
static LIST_VISIBLE: LazyLock<String> = LazyLock::new(|| {
    // A tag is a JSON string in the list of tags. Both databases compare with case only in `replace`.
    let has_tag = |number: usize| format!("replace(t.tags, ${}, '') <> t.tags", number + 7);
    let has_any_tag = (0..MAX_HOST_TAGS).map(has_tag).collect::<Vec<_>>().join(" OR ");
    format!(
        "SELECT i.id, i.group_key, i.title, i.severity, i.phase, v.opened_ms, i.quiet_since_ms, \
         i.reopen_count, i.ack, i.notified FROM incident i JOIN \
         (SELECT a.incident AS incident, min(a.fired_ms) AS opened_ms FROM alert a \
         JOIN host_tags t ON t.host = a.host WHERE {has_any_tag} GROUP BY a.incident \
         HAVING (max(CASE WHEN a.host = $3 THEN 1 ELSE 0 END) = 1 OR $3 IS NULL) \
         AND (max(CASE WHEN a.rule = $4 THEN 1 ELSE 0 END) = 1 OR $4 IS NULL)) v ON v.incident = i.id \
         WHERE v.opened_ms >= $1 AND (v.opened_ms < $2 OR (v.opened_ms = $2 AND i.id < $6)) \
         ORDER BY v.opened_ms DESC, i.id DESC LIMIT $5"
    )
});

/// Statement that reads incidents, with the columns in the order of [`IncidentRow::read`].
macro_rules! select_incidents {
    ($where:literal) => {
        concat!(
            "SELECT id, group_key, title, severity, phase, opened_ms, quiet_since_ms, reopen_count, \
             ack, notified FROM incident WHERE ",
            $where
        )
    };
}

impl IncidentRow {
    fn read(row: Vec<SqlValue>) -> Result<Self, StoreError> {
        let mut row = RowReader::new(row);
        Ok(Self {
            id: row.id()?,
            group_key: row.text()?,
            title: row.text()?,
            severity: row.text()?,
            phase: row.parsed(IncidentPhase::parse)?,
            opened_ms: row.int()?,
            quiet_since_ms: row.opt_int()?,
            reopen_count: row.int()?,
            ack: row.opt_text()?,
            notified: row.flag()?,
        })
    }

    /// Lists open incidents, and incidents that were resolved at or after a time; oldest first.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list_active(store: &dyn Store, quiet_since_ms: i64) -> Result<Vec<Self>, StoreError> {
        let sql = select_incidents!("open_key IS NOT NULL OR quiet_since_ms >= $1 ORDER BY opened_ms");
        store.query(sql, vec![quiet_since_ms.into()]).await?.into_iter().map(Self::read).collect()
    }

    /// Lists incidents that match a filter, newest first.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(store: &dyn Store, filter: IncidentFilter) -> Result<Vec<Self>, StoreError> {
        if !filter.host_tags.is_empty() {
            return Self::list_visible(store, &filter).await;
        }
        let sql = select_incidents!(
            "opened_ms >= $1 AND (opened_ms < $2 OR (opened_ms = $2 AND id < $8)) \
             AND (severity = $3 OR $3 IS NULL) \
             AND lower(title) LIKE $4 ESCAPE '!' \
             AND (id IN (SELECT incident FROM alert WHERE host = $5) OR $5 IS NULL) \
             AND (id IN (SELECT incident FROM alert WHERE rule = $6) OR $6 IS NULL) \
             AND (CASE WHEN phase = 'resolved' THEN 'resolved' WHEN ack IS NULL THEN 'open' \
             ELSE 'acknowledged' END = $9 OR $9 IS NULL) \
             ORDER BY opened_ms DESC, id DESC LIMIT $7"
        );
        let values = vec![
            filter.from_ms.into(),
            filter.to_ms.into(),
            filter.severity.as_deref().into(),
            like_pattern(&filter.text),
            filter.host.into(),
            filter.rule.into(),
            filter.limit.into(),
            filter.to_id.unwrap_or_default().into(),
            filter.state.as_deref().into(),
        ];
        store.query(sql, values).await?.into_iter().map(Self::read).collect()
    }

    async fn list_visible(store: &dyn Store, filter: &IncidentFilter) -> Result<Vec<Self>, StoreError> {
        let mut values = vec![
            filter.from_ms.into(),
            filter.to_ms.into(),
            filter.host.into(),
            filter.rule.into(),
            filter.limit.into(),
            filter.to_id.unwrap_or_default().into(),
        ];
        let quoted = filter.host_tags.iter().map(|tag| serde_json::Value::from(tag.as_str()).to_string());
        let tags: Vec<String> = quoted.take(MAX_HOST_TAGS).collect();
        values.extend(tags.iter().cycle().take(MAX_HOST_TAGS).map(|tag| tag.as_str().into()));
        store.query(LIST_VISIBLE.as_str(), values).await?.into_iter().map(Self::read).collect()
    }

    /// Reads one incident; `None` if it does not exist.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn get(store: &dyn Store, id: Uuid) -> Result<Option<Self>, StoreError> {
        let sql = select_incidents!("id = $1");
        store.query(sql, vec![id.into()]).await?.into_iter().next().map(Self::read).transpose()
    }
}

/// Writes of incidents, added to a [`Transaction`].
#[derive(Debug)]
pub struct IncidentRepository<'a>(&'a mut Transaction);

impl IncidentRepository<'_> {
    /// Inserts the incident or updates its state; a conflict if another incident with its group key is open.
    pub fn upsert(&mut self, incident: &IncidentRow) {
        let sql = "INSERT INTO incident (id, group_key, open_key, title, severity, phase, opened_ms, \
             quiet_since_ms, reopen_count, ack, notified) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
             ON CONFLICT (id) DO UPDATE SET open_key = excluded.open_key, title = excluded.title, \
             severity = excluded.severity, phase = excluded.phase, quiet_since_ms = excluded.quiet_since_ms, \
             reopen_count = excluded.reopen_count, ack = excluded.ack, notified = excluded.notified";
        let open_key = (incident.phase != IncidentPhase::Resolved).then_some(incident.group_key.as_str());
        let values = [
            incident.id.into(),
            incident.group_key.as_str().into(),
            open_key.into(),
            incident.title.as_str().into(),
            incident.severity.as_str().into(),
            incident.phase.into(),
            incident.opened_ms.into(),
            incident.quiet_since_ms.into(),
            incident.reopen_count.into(),
            incident.ack.as_deref().into(),
            incident.notified.into(),
        ];
        self.0.push(SqlStatement::new(sql, values));
    }

    /// Deletes incidents that were resolved before a time, with their alerts and timeline; also finished
    /// notifications that were created before it.
    pub fn delete_resolved_before(&mut self, before_ms: i64) {
        let delete = |sql| SqlStatement::new(sql, [before_ms.into()]);
        self.0.push_all([
            delete(
                "DELETE FROM alert WHERE incident IN \
                 (SELECT id FROM incident WHERE open_key IS NULL AND quiet_since_ms < $1)",
            ),
            delete(
                "DELETE FROM incident_event WHERE incident IN \
                 (SELECT id FROM incident WHERE open_key IS NULL AND quiet_since_ms < $1)",
            ),
            delete("DELETE FROM notification WHERE state <> 'pending' AND created_ms < $1"),
            delete("DELETE FROM incident WHERE open_key IS NULL AND quiet_since_ms < $1"),
        ]);
    }
}

/// Alert as the database stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRow {
    /// Stable identifier of the alert (UUIDv7).
    pub id: Uuid,
    /// Incident the alert belongs to.
    pub incident: Uuid,
    /// Rule, host and instance while the alert fires; `None` afterwards.
    pub firing_key: Option<String>,
    /// Rule the alert belongs to.
    pub rule: Uuid,
    /// Host of the alert; nil for alerts of the hub itself.
    pub host: Uuid,
    /// Severity of the alert.
    pub severity: String,
    /// Time at which the alert fired, Unix milliseconds.
    pub fired_ms: i64,
    /// Time at which the alert was resolved, Unix milliseconds.
    pub resolved_ms: Option<i64>,
    /// Remaining fields, as JSON.
    pub body: String,
}

/// Selection of [`AlertRow::list`]. Times are Unix milliseconds.
#[derive(Debug, Clone, Copy)]
pub enum AlertFilter {
    /// Alerts of incidents that are open, or were resolved at or after a time.
    Active(i64),
    /// Alerts of an incident.
    Incident(Uuid),
    /// Alerts of a host that fired or ended in a time range.
    Host(Uuid, i64, i64),
    /// Alerts of all hosts that fired before the second time, and ended at or after the first; the newest of each
    /// host, up to a number in total.
    Between(i64, i64, i64),
}

/// Statement that reads alerts, with the columns in the order of [`AlertRow::read`].
macro_rules! select_alerts {
    ($where:literal) => {
        concat!(
            "SELECT id, incident, firing_key, rule, host, severity, fired_ms, resolved_ms, body \
             FROM alert WHERE ",
            $where
        )
    };
}

impl AlertRow {
    fn read(row: Vec<SqlValue>) -> Result<Self, StoreError> {
        let mut row = RowReader::new(row);
        Ok(Self {
            id: row.id()?,
            incident: row.id()?,
            firing_key: row.opt_text()?,
            rule: row.id()?,
            host: row.id()?,
            severity: row.text()?,
            fired_ms: row.int()?,
            resolved_ms: row.opt_int()?,
            body: row.text()?,
        })
    }

    /// Lists alerts, oldest first; alerts of a host newest first, at most 500.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(store: &dyn Store, filter: AlertFilter) -> Result<Vec<Self>, StoreError> {
        let (sql, values) = match filter {
            AlertFilter::Active(quiet_since_ms) => (
                select_alerts!(
                    "incident IN \
                     (SELECT id FROM incident WHERE open_key IS NOT NULL OR quiet_since_ms >= $1) \
                     AND (firing_key IS NOT NULL OR resolved_ms >= $2) ORDER BY fired_ms, id"
                ),
                // Of an incident that stays open for weeks, the resolved alerts of the last day suffice.
                vec![quiet_since_ms.into(), (quiet_since_ms - DAY_MS).into()],
            ),
            AlertFilter::Incident(id) => {
                (select_alerts!("incident = $1 ORDER BY fired_ms, id"), vec![id.into()])
            }
            AlertFilter::Host(host, from_ms, to_ms) => (
                select_alerts!(
                    "host = $1 AND fired_ms < $3 AND (firing_key IS NOT NULL OR resolved_ms >= $2) \
                     ORDER BY fired_ms DESC, id LIMIT 500"
                ),
                vec![host.into(), from_ms.into(), to_ms.into()],
            ),
            AlertFilter::Between(from_ms, to_ms, limit) => (
                // A host with many alerts does not displace the alerts of others.
                select_alerts!(
                    "id IN (SELECT id FROM (SELECT id, fired_ms, ROW_NUMBER() OVER \
                     (PARTITION BY host ORDER BY fired_ms DESC, id) AS number FROM alert \
                     WHERE fired_ms < $2 AND (firing_key IS NOT NULL OR resolved_ms >= $1)) AS numbered \
                     ORDER BY number, fired_ms DESC, id LIMIT $3) ORDER BY fired_ms DESC, id"
                ),
                vec![from_ms.into(), to_ms.into(), limit.into()],
            ),
        };
        store.query(sql, values).await?.into_iter().map(Self::read).collect()
    }

    /// Lists the explanations (top consumers and movers) of an incident's alerts, as alert id and JSON.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn explanations(store: &dyn Store, incident: Uuid) -> Result<Vec<(Uuid, String)>, StoreError> {
        let sql = "SELECT id, explanation FROM alert WHERE incident = $1 AND explanation IS NOT NULL";
        let read = |row| {
            let mut row = RowReader::new(row);
            Ok((row.id()?, row.text()?))
        };
        store.query(sql, vec![incident.into()]).await?.into_iter().map(read).collect()
    }
}

/// Writes of alerts, added to a [`Transaction`].
#[derive(Debug)]
pub struct AlertRepository<'a>(&'a mut Transaction);

impl AlertRepository<'_> {
    /// Inserts the alert; a conflict if an alert with its firing key fires already.
    pub fn insert(&mut self, alert: &AlertRow, explanation: Option<&str>) {
        let sql = "INSERT INTO alert \
             (id, incident, firing_key, rule, host, severity, fired_ms, resolved_ms, body, explanation) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let values = [
            alert.id.into(),
            alert.incident.into(),
            alert.firing_key.as_deref().into(),
            alert.rule.into(),
            alert.host.into(),
            alert.severity.as_str().into(),
            alert.fired_ms.into(),
            alert.resolved_ms.into(),
            alert.body.as_str().into(),
            explanation.into(),
        ];
        self.0.push(SqlStatement::new(sql, values));
    }

    /// Updates a firing alert; a conflict if it was resolved already.
    pub fn update(&mut self, alert: &AlertRow) {
        let sql = "UPDATE alert SET firing_key = $2, resolved_ms = $3, body = $4 \
             WHERE id = $1 AND firing_key IS NOT NULL";
        let values = [
            alert.id.into(),
            alert.firing_key.as_deref().into(),
            alert.resolved_ms.into(),
            alert.body.as_str().into(),
        ];
        self.0.push(SqlStatement::new(sql, values).require_row());
    }
}

impl Transaction {
    /// Repository of incidents.
    pub fn incidents(&mut self) -> IncidentRepository<'_> {
        IncidentRepository(self)
    }

    /// Repository of alerts.
    pub fn alerts(&mut self) -> AlertRepository<'_> {
        AlertRepository(self)
    }

    /// Repository of the timeline of incidents.
    pub fn incident_events(&mut self) -> IncidentEventRepository<'_> {
        IncidentEventRepository(self)
    }
}

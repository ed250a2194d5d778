//! Timeline of incidents: state changes, acknowledgments and comments.

use super::IncidentEventKind;
use crate::error::StoreError;
use crate::sql::{RowReader, SqlStatement};
use crate::store::Store;
use crate::transaction::Transaction;
use uuid::Uuid;

/// An entry of an incident's timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncidentEventRow {
    /// Incident the entry belongs to.
    pub incident: Uuid,
    /// Time of the event, Unix milliseconds.
    pub at_ms: i64,
    /// Kind of the event.
    pub kind: IncidentEventKind,
    /// Actor of the event; empty for the hub itself.
    pub actor: String,
    /// Description, or the text of a comment.
    pub text: String,
}

impl IncidentEventRow {
    /// Lists the newest 1,000 entries of an incident, oldest first.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(store: &dyn Store, incident: Uuid) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT incident, at_ms, kind, actor, text FROM incident_event WHERE incident = $1 \
             ORDER BY at_ms DESC, id DESC LIMIT 1000";
        let read = |row| {
            let mut row = RowReader::new(row);
            Ok(Self {
                incident: row.id()?,
                at_ms: row.int()?,
                kind: row.parsed(IncidentEventKind::parse)?,
                actor: row.text()?,
                text: row.text()?,
            })
        };
        store.query(sql, vec![incident.into()]).await?.into_iter().rev().map(read).collect()
    }

    /// Number of entries of an actor in the timeline of an incident.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn count_of_actor(store: &dyn Store, incident: Uuid, actor: &str) -> Result<i64, StoreError> {
        let sql = "SELECT COUNT(*) FROM incident_event WHERE incident = $1 AND actor = $2";
        let rows = store.query(sql, vec![incident.into(), actor.into()]).await?;
        rows.into_iter().next().map_or(Ok(0), |row| RowReader::new(row).int())
    }
}

/// Writes of the timeline of incidents, added to a [`Transaction`].
#[derive(Debug)]
pub struct IncidentEventRepository<'a>(pub(super) &'a mut Transaction);

impl IncidentEventRepository<'_> {
    /// Appends the entry to the timeline.
    pub fn insert(&mut self, event: &IncidentEventRow) {
        let sql =
            "INSERT INTO incident_event (incident, at_ms, kind, actor, text) VALUES ($1, $2, $3, $4, $5)";
        let values = [
            event.incident.into(),
            event.at_ms.into(),
            event.kind.into(),
            event.actor.as_str().into(),
            event.text.as_str().into(),
        ];
        self.0.push(SqlStatement::new(sql, values));
    }
}

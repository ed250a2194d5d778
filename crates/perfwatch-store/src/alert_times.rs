//! Times of alerts and acknowledgments in a range, for statistics. Reads few columns of many alerts.

use crate::error::StoreError;
use crate::sql::RowReader;
use crate::store::Store;
use uuid::Uuid;

/// Condition that selects incidents that were open at or after `$1`.
macro_rules! active_since {
    () => {
        "(SELECT id FROM incident WHERE open_key IS NOT NULL OR quiet_since_ms >= $1)"
    };
}

/// Times of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertTimes {
    /// Incident that contains the alert.
    pub incident: Uuid,
    /// Rule that fired the alert.
    pub rule: Uuid,
    /// Host of the alert; nil for alerts of the hub itself.
    pub host: Uuid,
    /// Severity of the alert.
    pub severity: String,
    /// Time at which the alert fired, Unix milliseconds.
    pub fired_ms: i64,
    /// Time at which the alert was resolved, Unix milliseconds.
    pub resolved_ms: Option<i64>,
}

impl AlertTimes {
    /// Lists all alerts of incidents that were open at or after a time, newest first, up to a number.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(store: &dyn Store, since_ms: i64, limit: i64) -> Result<Vec<Self>, StoreError> {
        let sql = concat!(
            "SELECT incident, rule, host, severity, fired_ms, resolved_ms FROM alert WHERE incident IN ",
            active_since!(),
            " ORDER BY fired_ms DESC, id LIMIT $2"
        );
        let read = |row| {
            let mut row = RowReader::new(row);
            Ok(Self {
                incident: row.id()?,
                rule: row.id()?,
                host: row.id()?,
                severity: row.text()?,
                fired_ms: row.int()?,
                resolved_ms: row.opt_int()?,
            })
        };
        store.query(sql, vec![since_ms.into(), limit.into()]).await?.into_iter().map(read).collect()
    }

    /// Lists the first acknowledgments of incidents that were open at or after a time, as incident and Unix
    /// milliseconds.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn acknowledgments(
        store: &dyn Store,
        since_ms: i64,
        limit: i64,
    ) -> Result<Vec<(Uuid, i64)>, StoreError> {
        let sql = concat!(
            "SELECT incident, min(at_ms) FROM incident_event WHERE kind = 'acknowledged' AND incident IN ",
            active_since!(),
            " GROUP BY incident ORDER BY min(at_ms) DESC LIMIT $2"
        );
        let read = |row| {
            let mut row = RowReader::new(row);
            Ok((row.id()?, row.int()?))
        };
        store.query(sql, vec![since_ms.into(), limit.into()]).await?.into_iter().map(read).collect()
    }
}

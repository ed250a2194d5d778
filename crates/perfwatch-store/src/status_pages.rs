//! Public status pages, and the availability of their hosts on days that are over.

use crate::accounts::SecretHash;
use crate::error::StoreError;
use crate::sql::{RowReader, SqlStatement, SqlValue};
use crate::store::Store;
use crate::transaction::Transaction;
use perfwatch_model::HostId;
use uuid::Uuid;

/// Public status page. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusPage {
    /// Stable identifier of the page (UUIDv7).
    pub id: Uuid,
    /// Hash of the token in the link of the page.
    pub token_hash: SecretHash,
    /// Title of the page.
    pub title: String,
    /// Groups of hosts and selected values as JSON.
    pub body: String,
    /// Cleared while the link is switched off.
    pub enabled: bool,
    /// Time at which the link ends.
    pub expires_ms: i64,
    /// Account that created or last changed the page. The page depends on its rights.
    pub owner: Uuid,
    /// Token epoch of the owner at that time. A later epoch ends the page.
    pub owner_epoch: i64,
    /// API token that made the change, which the page ends with; `None` for a session.
    pub owner_token: Option<Uuid>,
    /// Time of the creation.
    pub created_ms: i64,
    /// Time of the last change. Changes are decided on it.
    pub updated_ms: i64,
}

impl StatusPage {
    /// Lists all pages, oldest first.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT id, token_hash, title, body, enabled, expires_ms, owner, owner_epoch, owner_token, \
             created_ms, updated_ms FROM status_page ORDER BY created_ms, id";
        store.query(sql, Vec::new()).await?.into_iter().map(Self::read).collect()
    }

    fn read(row: Vec<SqlValue>) -> Result<Self, StoreError> {
        let mut row = RowReader::new(row);
        Ok(Self {
            id: row.id()?,
            token_hash: row.array()?,
            title: row.text()?,
            body: row.text()?,
            enabled: row.flag()?,
            expires_ms: row.int()?,
            owner: row.id()?,
            owner_epoch: row.int()?,
            owner_token: row.opt_bytes()?.and_then(|id| Uuid::from_slice(&id).ok()),
            created_ms: row.int()?,
            updated_ms: row.int()?,
        })
    }

    fn values(&self) -> [SqlValue; 11] {
        [
            self.id.into(),
            self.token_hash[..].into(),
            self.title.as_str().into(),
            self.body.as_str().into(),
            self.enabled.into(),
            self.expires_ms.into(),
            self.owner.into(),
            self.owner_epoch.into(),
            self.owner_token.into(),
            self.created_ms.into(),
            self.updated_ms.into(),
        ]
    }
}

/// Availability of a host on a day in UTC. The times add up to the length of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AvailabilityDay {
    /// Days since 1970.
    pub day: i64,
    /// Time in which the host was up, in milliseconds.
    pub up_ms: i64,
    /// Time in which the host was down, in milliseconds.
    pub down_ms: i64,
    /// Time without data during a silence of the host, in milliseconds.
    pub maintenance_ms: i64,
    /// Time of which nothing is known, in milliseconds.
    pub unknown_ms: i64,
    /// Cleared while the host has sent nothing since the day: what it sends later may change the day.
    pub settled: bool,
}

impl AvailabilityDay {
    /// Lists the days of a host from a day on, oldest first.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(store: &dyn Store, host: HostId, from_day: i64) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT day, up_ms, down_ms, maintenance_ms, unknown_ms, settled FROM availability_day \
             WHERE host = $1 AND day >= $2 ORDER BY day";
        let read = |row| {
            let mut row = RowReader::new(row);
            Ok(Self {
                day: row.int()?,
                up_ms: row.int()?,
                down_ms: row.int()?,
                maintenance_ms: row.int()?,
                unknown_ms: row.int()?,
                settled: row.flag()?,
            })
        };
        store.query(sql, vec![host.0.into(), from_day.into()]).await?.into_iter().map(read).collect()
    }
}

/// Writes of status pages and availability, added to a [`Transaction`].
#[derive(Debug)]
pub struct StatusPageRepository<'a>(&'a mut Transaction);

impl StatusPageRepository<'_> {
    /// Inserts the page.
    pub fn insert(&mut self, page: &StatusPage) {
        let sql = "INSERT INTO status_page (id, token_hash, title, body, enabled, expires_ms, owner, \
             owner_epoch, owner_token, created_ms, updated_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        self.0.push(SqlStatement::new(sql, page.values()));
    }

    /// Replaces the page; a conflict if it changed since `base_ms` or was deleted.
    pub fn update(&mut self, page: &StatusPage, base_ms: i64) {
        let sql = "UPDATE status_page SET token_hash = $2, title = $3, body = $4, enabled = $5, \
             expires_ms = $6, owner = $7, owner_epoch = $8, owner_token = $9, created_ms = $10, \
             updated_ms = $11 WHERE id = $1 AND updated_ms = $12";
        let values = page.values().into_iter().chain([base_ms.into()]);
        self.0.push(SqlStatement::new(sql, values).require_row());
    }

    /// Deletes the page; a conflict if it was deleted already.
    pub fn delete(&mut self, id: Uuid) {
        let sql = "DELETE FROM status_page WHERE id = $1";
        self.0.push(SqlStatement::new(sql, [id.into()]).require_row());
    }

    /// Inserts or replaces a day of a host.
    pub fn put_day(&mut self, host: HostId, day: &AvailabilityDay) {
        let sql = "INSERT INTO availability_day \
             (host, day, up_ms, down_ms, maintenance_ms, unknown_ms, settled) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (host, day) DO UPDATE SET up_ms = excluded.up_ms, down_ms = excluded.down_ms, \
             maintenance_ms = excluded.maintenance_ms, unknown_ms = excluded.unknown_ms, \
             settled = excluded.settled";
        let values = [
            host.0.into(),
            day.day.into(),
            day.up_ms.into(),
            day.down_ms.into(),
            day.maintenance_ms.into(),
            day.unknown_ms.into(),
            day.settled.into(),
        ];
        self.0.push(SqlStatement::new(sql, values));
    }

    /// Deletes the days of all hosts before a day.
    pub fn delete_days_before(&mut self, day: i64) {
        self.0.push(SqlStatement::new("DELETE FROM availability_day WHERE day < $1", [day.into()]));
    }
}

impl Transaction {
    /// Repository of status pages and of the availability of their hosts.
    pub fn status_pages(&mut self) -> StatusPageRepository<'_> {
        StatusPageRepository(self)
    }
}

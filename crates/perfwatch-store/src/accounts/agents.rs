//! Agents: what lets one in for the first time, and who it is from then on.

use super::SecretHash;
use crate::sql::{RowReader, SqlStatement, json_list};
use crate::store::{Store, StoreError};
use perfwatch_model::HostId;
use uuid::Uuid;

/// What lets agents in for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollmentToken {
    /// For ever.
    pub id: Uuid,
    /// Of the token.
    pub hash: SecretHash,
    /// What it is for.
    pub name: String,
    /// Of the hosts that come in by it.
    pub tags: Vec<String>,
    /// How many more may come.
    pub uses_left: i64,
    /// Who made it.
    pub created_by: String,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
    /// When it ends.
    pub expires_ms: i64,
}

impl EnrollmentToken {
    /// All.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn list(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT id, hash, name, tags, uses_left, created_by, created_ms, expires_ms FROM enrolment ORDER BY created_ms";
        let read = |row| {
            let mut cells = RowReader::new(row);
            Ok(Self {
                id: cells.id()?,
                hash: cells.array()?,
                name: cells.text()?,
                tags: cells.list()?,
                uses_left: cells.int()?,
                created_by: cells.text()?,
                created_ms: cells.int()?,
                expires_ms: cells.int()?,
            })
        };
        store.query(sql, Vec::new()).await?.into_iter().map(read).collect()
    }

    /// A new one.
    pub fn insert(&self) -> SqlStatement {
        let sql = "INSERT INTO enrolment (id, hash, name, tags, uses_left, created_by, created_ms, expires_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let cells = [
            self.id.into(),
            self.hash[..].into(),
            self.name.as_str().into(),
            json_list(&self.tags),
            self.uses_left.into(),
            self.created_by.as_str().into(),
            self.created_ms.into(),
            self.expires_ms.into(),
        ];
        SqlStatement::new(sql, cells)
    }

    /// One more came in; a conflict where none may any more.
    pub fn consume(id: Uuid, now_ms: i64) -> SqlStatement {
        let sql = "UPDATE enrolment SET uses_left = uses_left - 1 WHERE id = $1 AND uses_left > 0 AND expires_ms > $2";
        SqlStatement::new(sql, [id.into(), now_ms.into()]).require_row()
    }

    /// Void from now on.
    pub fn delete(id: Uuid) -> SqlStatement {
        SqlStatement::new("DELETE FROM enrolment WHERE id = $1", [id.into()]).require_row()
    }

    /// Those that ended before a time.
    pub fn delete_expired(ended_ms: i64) -> SqlStatement {
        SqlStatement::new("DELETE FROM enrolment WHERE expires_ms < $1", [ended_ms.into()])
    }
}

/// An agent that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// For ever.
    pub id: Uuid,
    /// Of its secret.
    pub hash: SecretHash,
    /// The one host it may speak for.
    pub host: HostId,
    /// Name of what let it in.
    pub enrollment_token: String,
    /// Where it came from then.
    pub address: String,
    /// When it was let in, milliseconds since 1970.
    pub created_ms: i64,
    /// When it last sent, to the minute.
    pub last_seen_ms: i64,
    /// Since when it may not any more.
    pub revoked_ms: Option<i64>,
}

impl Agent {
    /// All, revoked ones too.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn list(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT id, hash, host, enrolment, address, created_ms, seen_ms, revoked_ms FROM agent ORDER BY created_ms";
        let read = |row| {
            let mut cells = RowReader::new(row);
            Ok(Self {
                id: cells.id()?,
                hash: cells.array()?,
                host: HostId(cells.id()?),
                enrollment_token: cells.text()?,
                address: cells.text()?,
                created_ms: cells.int()?,
                last_seen_ms: cells.int()?,
                revoked_ms: cells.opt_int()?,
            })
        };
        store.query(sql, Vec::new()).await?.into_iter().map(read).collect()
    }

    /// Let in.
    pub fn insert(&self) -> SqlStatement {
        let sql = "INSERT INTO agent (id, hash, host, enrolment, address, created_ms, seen_ms, revoked_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let cells = [
            self.id.into(),
            self.hash[..].into(),
            self.host.0.into(),
            self.enrollment_token.as_str().into(),
            self.address.as_str().into(),
            self.created_ms.into(),
            self.last_seen_ms.into(),
            self.revoked_ms.into(),
        ];
        SqlStatement::new(sql, cells)
    }

    /// It sent.
    pub fn touch(id: Uuid, seen_ms: i64) -> SqlStatement {
        SqlStatement::new("UPDATE agent SET seen_ms = $2 WHERE id = $1", [id.into(), seen_ms.into()])
    }

    /// Refused from now on.
    pub fn revoke(id: Uuid, now_ms: i64) -> SqlStatement {
        let sql = "UPDATE agent SET revoked_ms = $2 WHERE id = $1 AND revoked_ms IS NULL";
        SqlStatement::new(sql, [id.into(), now_ms.into()]).require_row()
    }

    /// Forgotten: refused as one that never was.
    pub fn delete(id: Uuid) -> SqlStatement {
        SqlStatement::new("DELETE FROM agent WHERE id = $1", [id.into()]).require_row()
    }
}

/// What hosts are told apart by, beside their names.
#[derive(Debug)]
pub struct HostTags;

impl HostTags {
    /// Of every host that has any.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn list(store: &dyn Store) -> Result<Vec<(HostId, Vec<String>)>, StoreError> {
        let read = |row| {
            let mut cells = RowReader::new(row);
            Ok((HostId(cells.id()?), cells.list()?))
        };
        store.query("SELECT id, tags FROM host_tag", Vec::new()).await?.into_iter().map(read).collect()
    }

    /// It has none.
    pub fn delete(host: HostId) -> SqlStatement {
        SqlStatement::new("DELETE FROM host_tag WHERE id = $1", [host.0.into()])
    }

    /// In place of those it had.
    pub fn set(host: HostId, tags: &[String]) -> SqlStatement {
        let sql = "INSERT INTO host_tag (id, tags) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET tags = excluded.tags";
        SqlStatement::new(sql, [host.0.into(), json_list(tags)])
    }
}

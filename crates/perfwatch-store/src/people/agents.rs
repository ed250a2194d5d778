//! Agents: what lets one in for the first time, and who it is from then on.

use super::Hash;
use crate::cells::{Cells, Change, list};
use crate::store::{Store, StoreError};
use perfwatch_model::HostId;
use uuid::Uuid;

/// What lets agents in for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// For ever.
    pub id: Uuid,
    /// Of the token.
    pub hash: Hash,
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

impl Enrolment {
    /// All.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn all(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT id, hash, name, tags, uses_left, created_by, created_ms, expires_ms FROM enrolment ORDER BY created_ms";
        let read = |row| {
            let mut cells = Cells::of(row);
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
        store.rows(sql, Vec::new()).await?.into_iter().map(read).collect()
    }

    /// A new one.
    pub fn add(&self) -> Change {
        let sql = "INSERT INTO enrolment (id, hash, name, tags, uses_left, created_by, created_ms, expires_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let cells = [
            self.id.into(),
            self.hash[..].into(),
            self.name.as_str().into(),
            list(&self.tags),
            self.uses_left.into(),
            self.created_by.as_str().into(),
            self.created_ms.into(),
            self.expires_ms.into(),
        ];
        Change::new(sql, cells)
    }

    /// One more came in; a conflict where none may any more.
    pub fn use_one(id: Uuid, now_ms: i64) -> Change {
        let sql = "UPDATE enrolment SET uses_left = uses_left - 1 WHERE id = $1 AND uses_left > 0 AND expires_ms > $2";
        Change::new(sql, [id.into(), now_ms.into()]).must()
    }

    /// Void from now on.
    pub fn remove(id: Uuid) -> Change {
        Change::new("DELETE FROM enrolment WHERE id = $1", [id.into()]).must()
    }

    /// Those that ended before a time.
    pub fn remove_old(ended_ms: i64) -> Change {
        Change::new("DELETE FROM enrolment WHERE expires_ms < $1", [ended_ms.into()])
    }
}

/// An agent that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// For ever.
    pub id: Uuid,
    /// Of its secret.
    pub hash: Hash,
    /// The one host it may speak for.
    pub host: HostId,
    /// Name of what let it in.
    pub enrolment: String,
    /// Where it came from then.
    pub address: String,
    /// When it was let in, milliseconds since 1970.
    pub created_ms: i64,
    /// When it last sent, to the minute.
    pub seen_ms: i64,
    /// Since when it may not any more.
    pub revoked_ms: Option<i64>,
}

impl Agent {
    /// All, revoked ones too.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn all(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT id, hash, host, enrolment, address, created_ms, seen_ms, revoked_ms FROM agent ORDER BY created_ms";
        let read = |row| {
            let mut cells = Cells::of(row);
            Ok(Self {
                id: cells.id()?,
                hash: cells.array()?,
                host: HostId(cells.id()?),
                enrolment: cells.text()?,
                address: cells.text()?,
                created_ms: cells.int()?,
                seen_ms: cells.int()?,
                revoked_ms: cells.maybe_int()?,
            })
        };
        store.rows(sql, Vec::new()).await?.into_iter().map(read).collect()
    }

    /// Let in.
    pub fn add(&self) -> Change {
        let sql = "INSERT INTO agent (id, hash, host, enrolment, address, created_ms, seen_ms, revoked_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let cells = [
            self.id.into(),
            self.hash[..].into(),
            self.host.0.into(),
            self.enrolment.as_str().into(),
            self.address.as_str().into(),
            self.created_ms.into(),
            self.seen_ms.into(),
            self.revoked_ms.into(),
        ];
        Change::new(sql, cells)
    }

    /// It sent.
    pub fn seen(id: Uuid, seen_ms: i64) -> Change {
        Change::new("UPDATE agent SET seen_ms = $2 WHERE id = $1", [id.into(), seen_ms.into()])
    }

    /// Refused from now on.
    pub fn revoke(id: Uuid, now_ms: i64) -> Change {
        let sql = "UPDATE agent SET revoked_ms = $2 WHERE id = $1 AND revoked_ms IS NULL";
        Change::new(sql, [id.into(), now_ms.into()]).must()
    }

    /// Forgotten: refused as one that never was.
    pub fn remove(id: Uuid) -> Change {
        Change::new("DELETE FROM agent WHERE id = $1", [id.into()]).must()
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
    pub async fn all(store: &dyn Store) -> Result<Vec<(HostId, Vec<String>)>, StoreError> {
        let read = |row| {
            let mut cells = Cells::of(row);
            Ok((HostId(cells.id()?), cells.list()?))
        };
        store.rows("SELECT id, tags FROM host_tag", Vec::new()).await?.into_iter().map(read).collect()
    }

    /// It has none.
    pub fn remove(host: HostId) -> Change {
        Change::new("DELETE FROM host_tag WHERE id = $1", [host.0.into()])
    }

    /// In place of those it had.
    pub fn put(host: HostId, tags: &[String]) -> Change {
        let sql = "INSERT INTO host_tag (id, tags) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET tags = excluded.tags";
        Change::new(sql, [host.0.into(), list(tags)])
    }
}

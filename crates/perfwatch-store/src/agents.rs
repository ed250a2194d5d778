//! Enrollment tokens, enrolled agents and tags of hosts.

use crate::accounts::SecretHash;
use crate::error::StoreError;
use crate::sql::{RowReader, SqlStatement, json_list};
use crate::store::Store;
use crate::transaction::Transaction;
use perfwatch_model::HostId;
use uuid::Uuid;

/// A credential that lets agents enroll, limited in uses and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollmentToken {
    /// Stable identifier of the token (UUIDv7).
    pub id: Uuid,
    /// Hash of the token.
    pub hash: SecretHash,
    /// Purpose of the token, as text.
    pub name: String,
    /// Tags of the hosts that enroll with the token.
    pub tags: Vec<String>,
    /// Number of agents that may still enroll.
    pub uses_left: i64,
    /// Actor that created the token.
    pub created_by: String,
    /// API token that created the token; `None` for sessions and tokens of earlier versions.
    pub created_by_token: Option<Uuid>,
    /// Time of creation, Unix milliseconds.
    pub created_ms: i64,
    /// Time of expiry, Unix milliseconds.
    pub expires_ms: i64,
    /// Existing host that the token enrolls again; `None` for new hosts.
    pub host: Option<HostId>,
}

impl EnrollmentToken {
    /// Lists all enrollment tokens, oldest first.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT id, hash, name, tags, uses_left, created_by, created_ms, expires_ms, host, \
             created_by_token FROM enrollment_token ORDER BY created_ms";
        let read = |row| {
            let mut row = RowReader::new(row);
            Ok(Self {
                id: row.id()?,
                hash: row.array()?,
                name: row.text()?,
                tags: row.list()?,
                uses_left: row.int()?,
                created_by: row.text()?,
                created_ms: row.int()?,
                expires_ms: row.int()?,
                host: row.opt_bytes()?.and_then(|host| HostId::from_bytes(&host)),
                created_by_token: row.opt_bytes()?.and_then(|id| Uuid::from_slice(&id).ok()),
            })
        };
        store.query(sql, Vec::new()).await?.into_iter().map(read).collect()
    }
}

/// Writes of enrollment tokens, added to a [`Transaction`].
#[derive(Debug)]
pub struct EnrollmentTokenRepository<'a>(&'a mut Transaction);

impl EnrollmentTokenRepository<'_> {
    /// Inserts the token as a new row.
    pub fn insert(&mut self, token: &EnrollmentToken) {
        let sql = "INSERT INTO enrollment_token \
             (id, hash, name, tags, uses_left, created_by, created_ms, expires_ms, host, \
             created_by_token) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let values = [
            token.id.into(),
            token.hash[..].into(),
            token.name.as_str().into(),
            json_list(&token.tags),
            token.uses_left.into(),
            token.created_by.as_str().into(),
            token.created_ms.into(),
            token.expires_ms.into(),
            token.host.map(|host| host.0).into(),
            token.created_by_token.into(),
        ];
        self.0.push(SqlStatement::new(sql, values));
    }

    /// Consumes one use; a conflict if the token has no uses left or has expired.
    pub fn consume(&mut self, id: Uuid, now_ms: i64) {
        let sql = "UPDATE enrollment_token SET uses_left = uses_left - 1 \
             WHERE id = $1 AND uses_left > 0 AND expires_ms > $2";
        self.0.push(SqlStatement::new(sql, [id.into(), now_ms.into()]).require_row());
    }

    /// Deletes the token; a conflict if it was deleted already.
    pub fn delete(&mut self, id: Uuid) {
        self.0
            .push(SqlStatement::new("DELETE FROM enrollment_token WHERE id = $1", [id.into()]).require_row());
    }

    /// Deletes tokens that expired before a time.
    pub fn delete_expired(&mut self, before_ms: i64) {
        self.0.push(SqlStatement::new(
            "DELETE FROM enrollment_token WHERE expires_ms < $1",
            [before_ms.into()],
        ));
    }
}

/// Returns whether a host sent snapshots or is collected over SSH, which another hub may have added a moment ago.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be read.
pub async fn is_known_host(store: &dyn Store, id: HostId) -> Result<bool, StoreError> {
    let sql = "SELECT id FROM host WHERE id = $1 UNION ALL SELECT id FROM server WHERE id = $1";
    let rows = store.query(sql, vec![id.0.into()]).await?;
    Ok(!rows.is_empty())
}

/// Agent that enrolled with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Stable identifier of the agent (UUIDv7).
    pub id: Uuid,
    /// Hash of the agent's secret.
    pub hash: SecretHash,
    /// Host whose snapshots the agent may send.
    pub host: HostId,
    /// Name of the enrollment token the agent used.
    pub enrollment_token: String,
    /// Id of this token; `None` for agents of earlier versions. Names are not unique.
    pub enrollment_token_id: Option<Uuid>,
    /// Hash of the earlier secret with which the agent enrolled its host again.
    pub previous_hash: Option<SecretHash>,
    /// Client address at enrollment.
    pub address: String,
    /// Time of enrollment, Unix milliseconds.
    pub created_ms: i64,
    /// Time of the last request, Unix milliseconds, exact to the minute.
    pub last_seen_ms: i64,
    /// Time of revocation, Unix milliseconds.
    pub revoked_ms: Option<i64>,
}

impl Agent {
    /// Lists all agents, revoked agents included, oldest first.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT id, hash, host, enrollment_token, address, created_ms, last_seen_ms, revoked_ms, \
             enrollment_token_id, previous_hash FROM agent ORDER BY created_ms";
        let read = |row| {
            let mut row = RowReader::new(row);
            Ok(Self {
                id: row.id()?,
                hash: row.array()?,
                host: HostId(row.id()?),
                enrollment_token: row.text()?,
                address: row.text()?,
                created_ms: row.int()?,
                last_seen_ms: row.int()?,
                revoked_ms: row.opt_int()?,
                enrollment_token_id: row.opt_bytes()?.and_then(|id| Uuid::from_slice(&id).ok()),
                previous_hash: row.opt_bytes()?.and_then(|hash| hash.try_into().ok()),
            })
        };
        store.query(sql, Vec::new()).await?.into_iter().map(read).collect()
    }
}

/// Writes of agents, added to a [`Transaction`].
#[derive(Debug)]
pub struct AgentRepository<'a>(&'a mut Transaction);

impl AgentRepository<'_> {
    /// Inserts the agent after its enrollment.
    pub fn insert(&mut self, agent: &Agent) {
        let sql = "INSERT INTO agent \
             (id, hash, host, enrollment_token, address, created_ms, last_seen_ms, revoked_ms, \
             enrollment_token_id, previous_hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let values = [
            agent.id.into(),
            agent.hash[..].into(),
            agent.host.0.into(),
            agent.enrollment_token.as_str().into(),
            agent.address.as_str().into(),
            agent.created_ms.into(),
            agent.last_seen_ms.into(),
            agent.revoked_ms.into(),
            agent.enrollment_token_id.into(),
            agent.previous_hash.as_ref().map(|hash| &hash[..]).into(),
        ];
        self.0.push(SqlStatement::new(sql, values));
    }

    /// Updates the time of the last request.
    pub fn touch(&mut self, id: Uuid, last_seen_ms: i64) {
        let sql = "UPDATE agent SET last_seen_ms = $2 WHERE id = $1";
        self.0.push(SqlStatement::new(sql, [id.into(), last_seen_ms.into()]));
    }

    /// Revokes the agent's secret; a conflict if it was revoked already.
    pub fn revoke(&mut self, id: Uuid, now_ms: i64) {
        let sql = "UPDATE agent SET revoked_ms = $2 WHERE id = $1 AND revoked_ms IS NULL";
        self.0.push(SqlStatement::new(sql, [id.into(), now_ms.into()]).require_row());
    }

    /// Deletes the agent. Its secret is rejected as unknown afterwards.
    pub fn delete(&mut self, id: Uuid) {
        self.0.push(SqlStatement::new("DELETE FROM agent WHERE id = $1", [id.into()]).require_row());
    }
}

/// Tags of hosts, one row per host.
#[derive(Debug)]
pub struct HostTags;

impl HostTags {
    /// Lists the tags of all hosts that have any.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(store: &dyn Store) -> Result<Vec<(HostId, Vec<String>)>, StoreError> {
        let read = |row| {
            let mut row = RowReader::new(row);
            Ok((HostId(row.id()?), row.list()?))
        };
        store.query("SELECT host, tags FROM host_tags", Vec::new()).await?.into_iter().map(read).collect()
    }
}

/// Writes of host tags, added to a [`Transaction`].
#[derive(Debug)]
pub struct HostTagRepository<'a>(&'a mut Transaction);

impl HostTagRepository<'_> {
    /// Deletes all tags of a host.
    pub fn delete(&mut self, host: HostId) {
        self.0.push(SqlStatement::new("DELETE FROM host_tags WHERE host = $1", [host.0.into()]));
    }

    /// Replaces the tags of a host.
    pub fn set(&mut self, host: HostId, tags: &[String]) {
        let sql = "INSERT INTO host_tags (host, tags) VALUES ($1, $2) \
             ON CONFLICT (host) DO UPDATE SET tags = excluded.tags";
        self.0.push(SqlStatement::new(sql, [host.0.into(), json_list(tags)]));
    }
}

impl Transaction {
    /// Repository of enrollment tokens.
    pub fn enrollment_tokens(&mut self) -> EnrollmentTokenRepository<'_> {
        EnrollmentTokenRepository(self)
    }

    /// Repository of agents.
    pub fn agents(&mut self) -> AgentRepository<'_> {
        AgentRepository(self)
    }

    /// Repository of host tags.
    pub fn host_tags(&mut self) -> HostTagRepository<'_> {
        HostTagRepository(self)
    }
}

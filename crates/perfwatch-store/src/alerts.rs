//! What fired and who is told: rules, channels and silences as records whose inside is the
//! hub's; incidents with their alerts and what became of them; messages on their way out.

mod outbox;

pub use outbox::{NotificationFilter, NotificationRow, Outbox};

use crate::sql::{RowReader, SqlStatement, SqlValue};
use crate::store::{Store, StoreError};
use uuid::Uuid;

/// A table of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefinitionKind {
    /// What people ask to be told of.
    Rule,
    /// Who is told.
    Channel,
    /// When not.
    Silence,
}

impl DefinitionKind {
    /// All records, by id: those made first come first.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn list(self, store: &dyn Store) -> Result<Vec<(Uuid, String)>, StoreError> {
        let sql = match self {
            Self::Rule => "SELECT id, body FROM rule ORDER BY id",
            Self::Channel => "SELECT id, body FROM channel ORDER BY id",
            Self::Silence => "SELECT id, body FROM silence ORDER BY id",
        };
        let read = |row| {
            let mut cells = RowReader::new(row);
            Ok((cells.id()?, cells.text()?))
        };
        store.query(sql, Vec::new()).await?.into_iter().map(read).collect()
    }

    /// New, or in place of what it was.
    pub fn upsert(self, id: Uuid, body: &str) -> SqlStatement {
        let sql = match self {
            Self::Rule => {
                "INSERT INTO rule (id, body) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
            }
            Self::Channel => {
                "INSERT INTO channel (id, body) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
            }
            Self::Silence => {
                "INSERT INTO silence (id, body) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
            }
        };
        SqlStatement::new(sql, [id.into(), body.into()])
    }

    /// Gone.
    pub fn delete(self, id: Uuid) -> SqlStatement {
        let sql = match self {
            Self::Rule => "DELETE FROM rule WHERE id = $1",
            Self::Channel => "DELETE FROM channel WHERE id = $1",
            Self::Silence => "DELETE FROM silence WHERE id = $1",
        };
        SqlStatement::new(sql, [id.into()]).require_row()
    }
}

/// An incident as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncidentRow {
    /// For ever.
    pub id: Uuid,
    /// What its alerts have in common.
    pub group_key: String,
    /// Whether it is over.
    pub closed: bool,
    /// In few words.
    pub title: String,
    /// How bad.
    pub severity: String,
    /// How it stands.
    pub phase: String,
    /// When it began, milliseconds since 1970.
    pub opened_ms: i64,
    /// When it was last over.
    pub quiet_since_ms: Option<i64>,
    /// How often it came back.
    pub reopen_count: i64,
    /// Who takes it on, as a record.
    pub ack: Option<String>,
    /// Whether anybody was told.
    pub notified: bool,
}

/// Which incidents, newest first.
#[derive(Debug, Clone, Default)]
pub struct IncidentFilter {
    /// With an alert of this host.
    pub host: Option<Uuid>,
    /// With an alert by this rule.
    pub rule: Option<Uuid>,
    /// So bad.
    pub severity: Option<String>,
    /// Part of the title, in any case.
    pub text: String,
    /// Begun from here on.
    pub from_ms: i64,
    /// Begun before.
    pub to_ms: i64,
    /// Begun at that time, but with an id before this one.
    pub to_id: Option<Uuid>,
    /// How many.
    pub limit: i64,
}

impl IncidentRow {
    fn read(row: Vec<SqlValue>) -> Result<Self, StoreError> {
        let mut cells = RowReader::new(row);
        Ok(Self {
            id: cells.id()?,
            group_key: cells.text()?,
            closed: cells.opt_text()?.is_none(),
            title: cells.text()?,
            severity: cells.text()?,
            phase: cells.text()?,
            opened_ms: cells.int()?,
            quiet_since_ms: cells.opt_int()?,
            reopen_count: cells.int()?,
            ack: cells.opt_text()?,
            notified: cells.int()? != 0,
        })
    }

    /// New, or as it stands now; a conflict where another one with its key is not over.
    pub fn upsert(&self) -> SqlStatement {
        let sql = "INSERT INTO incident (id, key, live_key, title, severity, phase, opened_ms, calm_ms, reopened, ack, told) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (id) DO UPDATE SET \
             live_key = excluded.live_key, title = excluded.title, severity = excluded.severity, \
             phase = excluded.phase, calm_ms = excluded.calm_ms, reopened = excluded.reopened, \
             ack = excluded.ack, told = excluded.told";
        let cells = [
            self.id.into(),
            self.group_key.as_str().into(),
            Some(self.group_key.as_str()).filter(|_| !self.closed).into(),
            self.title.as_str().into(),
            self.severity.as_str().into(),
            self.phase.as_str().into(),
            self.opened_ms.into(),
            self.quiet_since_ms.into(),
            self.reopen_count.into(),
            self.ack.as_deref().into(),
            self.notified.into(),
        ];
        SqlStatement::new(sql, cells)
    }

    /// Those that are not over, and those that have not been for long.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn list_active(store: &dyn Store, calm_since_ms: i64) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT id, key, live_key, title, severity, phase, opened_ms, calm_ms, reopened, ack, told FROM incident \
             WHERE live_key IS NOT NULL OR calm_ms >= $1 ORDER BY opened_ms";
        store.query(sql, vec![calm_since_ms.into()]).await?.into_iter().map(Self::read).collect()
    }

    /// Those that a filter lets through, newest first.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn list(store: &dyn Store, filter: IncidentFilter) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT id, key, live_key, title, severity, phase, opened_ms, calm_ms, reopened, ack, told FROM incident \
             WHERE opened_ms >= $1 AND (opened_ms < $2 OR (opened_ms = $2 AND id < $8)) AND (severity = $3 OR $3 IS NULL) \
             AND lower(title) LIKE $4 ESCAPE '!' \
             AND (id IN (SELECT incident FROM alert WHERE host = $5) OR $5 IS NULL) \
             AND (id IN (SELECT incident FROM alert WHERE rule = $6) OR $6 IS NULL) \
             ORDER BY opened_ms DESC, id DESC LIMIT $7";
        let cells = vec![
            filter.from_ms.into(),
            filter.to_ms.into(),
            filter.severity.as_deref().into(),
            crate::sql::like_pattern(&filter.text),
            filter.host.into(),
            filter.rule.into(),
            filter.limit.into(),
            filter.to_id.unwrap_or_default().into(),
        ];
        store.query(sql, cells).await?.into_iter().map(Self::read).collect()
    }

    /// One.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn get(store: &dyn Store, id: Uuid) -> Result<Option<Self>, StoreError> {
        let sql = "SELECT id, key, live_key, title, severity, phase, opened_ms, calm_ms, reopened, ack, told FROM incident WHERE id = $1";
        store.query(sql, vec![id.into()]).await?.into_iter().next().map(Self::read).transpose()
    }

    /// Those that were over before a time are let go, with all that belongs to them.
    pub fn delete_resolved_before(before_ms: i64) -> [SqlStatement; 4] {
        let old = |sql| SqlStatement::new(sql, [before_ms.into()]);
        [
            old(
                "DELETE FROM alert WHERE incident IN (SELECT id FROM incident WHERE live_key IS NULL AND calm_ms < $1)",
            ),
            old(
                "DELETE FROM incident_event WHERE incident IN (SELECT id FROM incident WHERE live_key IS NULL AND calm_ms < $1)",
            ),
            old("DELETE FROM outbox WHERE state <> 'waiting' AND created_ms < $1"),
            old("DELETE FROM incident WHERE live_key IS NULL AND calm_ms < $1"),
        ]
    }
}

/// An alert as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRow {
    /// For ever.
    pub id: Uuid,
    /// What it belongs to.
    pub incident: Uuid,
    /// Rule, host and instance while it fires.
    pub firing_key: Option<String>,
    /// By which rule.
    pub rule: Uuid,
    /// Whose; nil for the hub.
    pub host: Uuid,
    /// How bad.
    pub severity: String,
    /// When it fired, milliseconds since 1970.
    pub fired_ms: i64,
    /// When it ended.
    pub resolved_ms: Option<i64>,
    /// The rest, as a record.
    pub body: String,
}

/// Which alerts.
#[derive(Debug, Clone, Copy)]
pub enum AlertFilter {
    /// Those of incidents that are not over, or have not been for long: calm since this time.
    Active(i64),
    /// Those of an incident.
    Incident(Uuid),
    /// Those of a host that fired or ended in a time.
    Host(Uuid, i64, i64),
}

impl AlertRow {
    /// New; a conflict where it fires already.
    pub fn insert(&self, explanation: Option<&str>) -> SqlStatement {
        let sql = "INSERT INTO alert (id, incident, live_key, rule, host, severity, fired_ms, resolved_ms, body, explanation) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let cells = [
            self.id.into(),
            self.incident.into(),
            self.firing_key.as_deref().into(),
            self.rule.into(),
            self.host.into(),
            self.severity.as_str().into(),
            self.fired_ms.into(),
            self.resolved_ms.into(),
            self.body.as_str().into(),
            explanation.into(),
        ];
        SqlStatement::new(sql, cells)
    }

    /// As it stands now; a conflict where it was ended already.
    pub fn update(&self) -> SqlStatement {
        let sql = "UPDATE alert SET live_key = $2, resolved_ms = $3, body = $4 WHERE id = $1 AND live_key IS NOT NULL";
        let cells = [
            self.id.into(),
            self.firing_key.as_deref().into(),
            self.resolved_ms.into(),
            self.body.as_str().into(),
        ];
        SqlStatement::new(sql, cells).require_row()
    }

    fn read(row: Vec<SqlValue>) -> Result<Self, StoreError> {
        let mut cells = RowReader::new(row);
        Ok(Self {
            id: cells.id()?,
            incident: cells.id()?,
            firing_key: cells.opt_text()?,
            rule: cells.id()?,
            host: cells.id()?,
            severity: cells.text()?,
            fired_ms: cells.int()?,
            resolved_ms: cells.opt_int()?,
            body: cells.text()?,
        })
    }

    /// Alerts, oldest first.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn list(store: &dyn Store, of: AlertFilter) -> Result<Vec<Self>, StoreError> {
        let (sql, cells) = match of {
            AlertFilter::Active(calm_since_ms) => (
                "SELECT id, incident, live_key, rule, host, severity, fired_ms, resolved_ms, body FROM alert \
                 WHERE incident IN (SELECT id FROM incident WHERE live_key IS NOT NULL OR calm_ms >= $1) \
                 AND (live_key IS NOT NULL OR resolved_ms >= $2) ORDER BY fired_ms, id",
                // Of one that goes on for weeks, the last day is enough to tell of.
                vec![calm_since_ms.into(), (calm_since_ms - 86_400_000).into()],
            ),
            AlertFilter::Incident(id) => (
                "SELECT id, incident, live_key, rule, host, severity, fired_ms, resolved_ms, body FROM alert \
                 WHERE incident = $1 ORDER BY fired_ms, id",
                vec![id.into()],
            ),
            AlertFilter::Host(host, from_ms, to_ms) => (
                "SELECT id, incident, live_key, rule, host, severity, fired_ms, resolved_ms, body FROM alert \
                 WHERE host = $1 AND fired_ms < $3 AND (live_key IS NOT NULL OR resolved_ms >= $2) \
                 ORDER BY fired_ms DESC, id LIMIT 500",
                vec![host.into(), from_ms.into(), to_ms.into()],
            ),
        };
        store.query(sql, cells).await?.into_iter().map(Self::read).collect()
    }

    /// What was seen when each alert of an incident fired.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn explanations(store: &dyn Store, incident: Uuid) -> Result<Vec<(Uuid, String)>, StoreError> {
        let sql = "SELECT id, explanation FROM alert WHERE incident = $1 AND explanation IS NOT NULL";
        let read = |row| {
            let mut cells = RowReader::new(row);
            Ok((cells.id()?, cells.text()?))
        };
        store.query(sql, vec![incident.into()]).await?.into_iter().map(read).collect()
    }
}

/// When any hub last heard from a host, roughly: each tells the others every few seconds.
#[derive(Debug)]
pub struct HostLastSeen;

impl HostLastSeen {
    /// A hub heard from it.
    pub fn upsert(host: Uuid, at_ms: i64) -> SqlStatement {
        let sql = "INSERT INTO heard (host, at_ms) VALUES ($1, $2) ON CONFLICT (host) DO UPDATE SET at_ms = excluded.at_ms";
        SqlStatement::new(sql, [host.into(), at_ms.into()])
    }

    /// All.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn list(store: &dyn Store) -> Result<Vec<(Uuid, i64)>, StoreError> {
        let read = |row| {
            let mut cells = RowReader::new(row);
            Ok((cells.id()?, cells.int()?))
        };
        store.query("SELECT host, at_ms FROM heard", Vec::new()).await?.into_iter().map(read).collect()
    }

    /// Of a host that is no more.
    pub fn delete(host: Uuid) -> SqlStatement {
        SqlStatement::new("DELETE FROM heard WHERE host = $1", [host.into()])
    }
}

/// Something that happened to an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncidentEventRow {
    /// To which.
    pub incident: Uuid,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// `fired`, `resolved`, `acknowledged`, `comment`, `told`…
    pub kind: String,
    /// Who; empty for the hub itself.
    pub actor: String,
    /// In words.
    pub text: String,
}

impl IncidentEventRow {
    /// Written down.
    pub fn insert(&self) -> SqlStatement {
        let sql =
            "INSERT INTO incident_event (incident, at_ms, kind, actor, text) VALUES ($1, $2, $3, $4, $5)";
        let cells = [
            self.incident.into(),
            self.at_ms.into(),
            self.kind.as_str().into(),
            self.actor.as_str().into(),
            self.text.as_str().into(),
        ];
        SqlStatement::new(sql, cells)
    }

    /// Of an incident, oldest first.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn list(store: &dyn Store, incident: Uuid) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT incident, at_ms, kind, actor, text FROM incident_event WHERE incident = $1 ORDER BY at_ms DESC, id DESC LIMIT 1000";
        let read = |row| {
            let mut cells = RowReader::new(row);
            Ok(Self {
                incident: cells.id()?,
                at_ms: cells.int()?,
                kind: cells.text()?,
                actor: cells.text()?,
                text: cells.text()?,
            })
        };
        // The newest thousand.
        store.query(sql, vec![incident.into()]).await?.into_iter().rev().map(read).collect()
    }
}

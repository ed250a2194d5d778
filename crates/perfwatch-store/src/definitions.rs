//! Rules, channels and silences, stored as JSON documents that the alerting module reads and writes.

use crate::error::StoreError;
use crate::sql::{RowReader, SqlStatement};
use crate::store::Store;
use crate::transaction::Transaction;
use uuid::Uuid;

/// Kind of an alert definition; each kind has its own table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefinitionKind {
    /// Rule that creates alerts.
    Rule,
    /// Channel that receives notifications.
    Channel,
    /// Silence that suppresses notifications.
    Silence,
}

impl DefinitionKind {
    /// Lists all definitions of the kind as id and document, oldest first.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(self, store: &dyn Store) -> Result<Vec<(Uuid, String)>, StoreError> {
        let sql = match self {
            Self::Rule => "SELECT id, body FROM rule ORDER BY id",
            Self::Channel => "SELECT id, body FROM channel ORDER BY id",
            Self::Silence => "SELECT id, body FROM silence ORDER BY id",
        };
        let read = |row| {
            let mut row = RowReader::new(row);
            Ok((row.id()?, row.text()?))
        };
        store.query(sql, Vec::new()).await?.into_iter().map(read).collect()
    }
}

/// Writes of alert definitions of one kind, added to a [`Transaction`].
#[derive(Debug)]
pub struct DefinitionRepository<'a>(&'a mut Transaction, DefinitionKind);

impl DefinitionRepository<'_> {
    /// Inserts a definition, or replaces its document.
    pub fn upsert(&mut self, id: Uuid, body: &str) {
        let sql = match self.1 {
            DefinitionKind::Rule => {
                "INSERT INTO rule (id, body) VALUES ($1, $2) \
                 ON CONFLICT (id) DO UPDATE SET body = excluded.body"
            }
            DefinitionKind::Channel => {
                "INSERT INTO channel (id, body) VALUES ($1, $2) \
                 ON CONFLICT (id) DO UPDATE SET body = excluded.body"
            }
            DefinitionKind::Silence => {
                "INSERT INTO silence (id, body) VALUES ($1, $2) \
                 ON CONFLICT (id) DO UPDATE SET body = excluded.body"
            }
        };
        self.0.push(SqlStatement::new(sql, [id.into(), body.into()]));
    }

    /// Deletes a definition; a conflict if it was deleted already.
    pub fn delete(&mut self, id: Uuid) {
        let sql = match self.1 {
            DefinitionKind::Rule => "DELETE FROM rule WHERE id = $1",
            DefinitionKind::Channel => "DELETE FROM channel WHERE id = $1",
            DefinitionKind::Silence => "DELETE FROM silence WHERE id = $1",
        };
        self.0.push(SqlStatement::new(sql, [id.into()]).require_row());
    }
}

impl Transaction {
    /// Repository of the alert definitions of one kind.
    pub fn definitions(&mut self, kind: DefinitionKind) -> DefinitionRepository<'_> {
        DefinitionRepository(self, kind)
    }
}

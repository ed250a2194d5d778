//! Rules, channels and silences, stored as JSON documents that the alerting module reads and writes.

use crate::error::StoreError;
use crate::sql::{RowReader, SqlStatement};
use crate::store::Store;
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

    /// Inserts a definition, or replaces its document.
    pub fn upsert(self, id: Uuid, body: &str) -> SqlStatement {
        let sql = match self {
            Self::Rule => {
                "INSERT INTO rule (id, body) VALUES ($1, $2) \
                 ON CONFLICT (id) DO UPDATE SET body = excluded.body"
            }
            Self::Channel => {
                "INSERT INTO channel (id, body) VALUES ($1, $2) \
                 ON CONFLICT (id) DO UPDATE SET body = excluded.body"
            }
            Self::Silence => {
                "INSERT INTO silence (id, body) VALUES ($1, $2) \
                 ON CONFLICT (id) DO UPDATE SET body = excluded.body"
            }
        };
        SqlStatement::new(sql, [id.into(), body.into()])
    }

    /// Deletes a definition; a conflict if it was deleted already.
    pub fn delete(self, id: Uuid) -> SqlStatement {
        let sql = match self {
            Self::Rule => "DELETE FROM rule WHERE id = $1",
            Self::Channel => "DELETE FROM channel WHERE id = $1",
            Self::Silence => "DELETE FROM silence WHERE id = $1",
        };
        SqlStatement::new(sql, [id.into()]).require_row()
    }
}

//! Saved views: queries and charts that accounts store under a name.

use crate::error::StoreError;
use crate::sql::{RowReader, SqlStatement, SqlValue};
use crate::store::Store;
use crate::transaction::Transaction;
use uuid::Uuid;

/// Saved view of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedView {
    /// Stable identifier of the view (UUIDv7).
    pub id: Uuid,
    /// Account that created the view.
    pub owner: Uuid,
    /// Name of the view, unique among the views of its owner.
    pub name: String,
    /// Visible to all accounts.
    pub shared: bool,
    /// Queries and chart as JSON.
    pub body: String,
    /// Time of the last change, Unix milliseconds. Changes are decided on it.
    pub updated_ms: i64,
}

impl SavedView {
    /// Lists the views of an account and the shared views of all accounts by name.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(store: &dyn Store, account: Uuid) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT id, owner, name, shared, body, updated_ms FROM saved_view \
             WHERE owner = $1 OR shared = 1 ORDER BY name, id";
        store.query(sql, vec![account.into()]).await?.into_iter().map(Self::read).collect()
    }

    /// Reads a view; `None` if it does not exist.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn get(store: &dyn Store, id: Uuid) -> Result<Option<Self>, StoreError> {
        let sql = "SELECT id, owner, name, shared, body, updated_ms FROM saved_view WHERE id = $1";
        store.query(sql, vec![id.into()]).await?.into_iter().next().map(Self::read).transpose()
    }

    fn read(row: Vec<SqlValue>) -> Result<Self, StoreError> {
        let mut row = RowReader::new(row);
        Ok(Self {
            id: row.id()?,
            owner: row.id()?,
            name: row.text()?,
            shared: row.flag()?,
            body: row.text()?,
            updated_ms: row.int()?,
        })
    }
}

/// Writes of saved views, added to a [`Transaction`].
#[derive(Debug)]
pub struct SavedViewRepository<'a>(&'a mut Transaction);

impl SavedViewRepository<'_> {
    /// Inserts the view; a conflict if its owner has a view of the name.
    pub fn insert(&mut self, view: &SavedView) {
        let sql = "INSERT INTO saved_view (id, owner, name, shared, body, updated_ms) \
             VALUES ($1, $2, $3, $4, $5, $6)";
        let values = [
            view.id.into(),
            view.owner.into(),
            view.name.as_str().into(),
            view.shared.into(),
            view.body.as_str().into(),
            view.updated_ms.into(),
        ];
        self.0.push(SqlStatement::new(sql, values));
    }

    /// Replaces name, access and content; a conflict if the view changed since `base_ms`, was deleted, or if its
    /// owner has another view of the name.
    pub fn update(&mut self, view: &SavedView, base_ms: i64) {
        let sql = "UPDATE saved_view SET name = $2, shared = $3, body = $4, updated_ms = $5 \
             WHERE id = $1 AND updated_ms = $6";
        let values = [
            view.id.into(),
            view.name.as_str().into(),
            view.shared.into(),
            view.body.as_str().into(),
            view.updated_ms.into(),
            base_ms.into(),
        ];
        self.0.push(SqlStatement::new(sql, values).require_row());
    }

    /// Deletes the view; a conflict if it was deleted already.
    pub fn delete(&mut self, id: Uuid) {
        self.0.push(SqlStatement::new("DELETE FROM saved_view WHERE id = $1", [id.into()]).require_row());
    }

    /// Deletes all views of an account.
    pub(crate) fn delete_for_account(&mut self, account: Uuid) {
        self.0.push(SqlStatement::new("DELETE FROM saved_view WHERE owner = $1", [account.into()]));
    }
}

impl Transaction {
    /// Repository of saved views.
    pub fn saved_views(&mut self) -> SavedViewRepository<'_> {
        SavedViewRepository(self)
    }
}

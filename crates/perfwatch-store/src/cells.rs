//! Ordinary tables in SQL that both databases understand: values are `$1`, `$2`…, whole numbers
//! are `BIGINT`, lists and records are text. So each noun is written once, not once a database.

use crate::store::StoreError;
use rusqlite::types::{ToSqlOutput, ValueRef};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Nothing.
    Null,
    /// A whole number; flags are 0 and 1.
    Int(i64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// A statement with its values.
#[derive(Debug, Clone)]
pub struct Change {
    pub(crate) sql: &'static str,
    pub(crate) cells: Vec<Cell>,
    /// Touching no row is a [`crate::CommitError::Conflict`].
    pub(crate) must: bool,
}

impl Change {
    /// A change that may find nothing to do.
    pub fn new(sql: &'static str, cells: impl IntoIterator<Item = Cell>) -> Self {
        Self { sql, cells: cells.into_iter().collect(), must: false }
    }

    /// A change that must find a row.
    #[must_use]
    pub fn must(self) -> Self {
        Self { must: true, ..self }
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Int(value.into())
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        // PostgreSQL's texts hold no NUL: one from outside must not stop a commit.
        Self::Text(if value.contains('\0') { value.replace('\0', "\u{fffd}") } else { value.to_owned() })
    }
}

impl From<&[u8]> for Cell {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_owned())
    }
}

impl From<uuid::Uuid> for Cell {
    fn from(value: uuid::Uuid) -> Self {
        Self::Bytes(value.as_bytes().to_vec())
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<ValueRef<'_>> for Cell {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Int(number),
            // No column of ours has any.
            ValueRef::Real(number) => Self::Text(number.to_string()),
            ValueRef::Text(text) => Self::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Self::Bytes(bytes.to_vec()),
        }
    }
}

impl rusqlite::ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl ToSql for Cell {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut bytes::BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) => number.to_sql_checked(ty, out),
            Self::Text(text) => text.to_sql_checked(ty, out),
            Self::Bytes(bytes) => bytes.to_sql_checked(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        [Type::INT8, Type::TEXT, Type::BYTEA].contains(ty)
    }

    to_sql_checked!();
}

/// The value of a column of PostgreSQL.
pub(crate) fn of_postgres(row: &tokio_postgres::Row, at: usize) -> Cell {
    let ty = row.columns()[at].type_();
    if *ty == Type::BYTEA {
        row.get::<_, Option<&[u8]>>(at).into()
    } else if *ty == Type::TEXT {
        row.get::<_, Option<&str>>(at).into()
    } else {
        row.get::<_, Option<i64>>(at).into()
    }
}

/// A row that is taken apart from the left.
pub(crate) struct Cells(std::vec::IntoIter<Cell>);

impl Cells {
    pub(crate) fn of(row: Vec<Cell>) -> Self {
        Self(row.into_iter())
    }

    fn wrong(what: &str) -> StoreError {
        StoreError::Refused(format!("a table holds something else where {what} belongs"))
    }

    pub(crate) fn int(&mut self) -> Result<i64, StoreError> {
        self.maybe_int()?.ok_or_else(|| Self::wrong("a number"))
    }

    pub(crate) fn maybe_int(&mut self) -> Result<Option<i64>, StoreError> {
        match self.0.next() {
            Some(Cell::Int(number)) => Ok(Some(number)),
            Some(Cell::Null) => Ok(None),
            _ => Err(Self::wrong("a number")),
        }
    }

    pub(crate) fn text(&mut self) -> Result<String, StoreError> {
        self.maybe_text()?.ok_or_else(|| Self::wrong("a text"))
    }

    pub(crate) fn maybe_text(&mut self) -> Result<Option<String>, StoreError> {
        match self.0.next() {
            Some(Cell::Text(text)) => Ok(Some(text)),
            Some(Cell::Null) => Ok(None),
            _ => Err(Self::wrong("a text")),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        self.maybe_bytes()?.ok_or_else(|| Self::wrong("bytes"))
    }

    pub(crate) fn maybe_bytes(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.0.next() {
            Some(Cell::Bytes(bytes)) => Ok(Some(bytes)),
            Some(Cell::Null) => Ok(None),
            _ => Err(Self::wrong("bytes")),
        }
    }

    /// A value of fixed size: an id, a hash.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        self.bytes()?.try_into().map_err(|_| Self::wrong("bytes of another length"))
    }

    pub(crate) fn id(&mut self) -> Result<uuid::Uuid, StoreError> {
        Ok(uuid::Uuid::from_bytes(self.array()?))
    }

    /// A list, as JSON.
    pub(crate) fn list(&mut self) -> Result<Vec<String>, StoreError> {
        serde_json::from_str(&self.text()?).map_err(|_| Self::wrong("a list"))
    }
}

/// A list as it is kept.
pub(crate) fn list(texts: &[String]) -> Cell {
    // Texts always serialise.
    Cell::Text(serde_json::to_string(texts).unwrap_or_else(|_| "[]".to_owned()))
}

/// A pattern for `LIKE … ESCAPE '!'`: what has this text in it, in lower case.
pub(crate) fn part_of(text: &str) -> Cell {
    let plain = text.to_lowercase().replace('!', "!!").replace('%', "!%").replace('_', "!_");
    Cell::Text(format!("%{plain}%"))
}

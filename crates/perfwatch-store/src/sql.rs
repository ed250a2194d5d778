//! Ordinary tables in SQL that both databases understand: values are `$1`, `$2`…, whole numbers
//! are `BIGINT`, lists and records are text. So each noun is written once, not once a database.

use crate::store::StoreError;
use rusqlite::types::{ToSqlOutput, ValueRef};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlValue {
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
pub struct SqlStatement {
    pub(crate) sql: &'static str,
    pub(crate) values: Vec<SqlValue>,
    /// Touching no row is a [`crate::CommitError::Conflict`].
    pub(crate) require_row: bool,
}

impl SqlStatement {
    /// A change that may find nothing to do.
    pub fn new(sql: &'static str, cells: impl IntoIterator<Item = SqlValue>) -> Self {
        Self { sql, values: cells.into_iter().collect(), require_row: false }
    }

    /// A change that must find a row.
    #[must_use]
    pub fn require_row(self) -> Self {
        Self { require_row: true, ..self }
    }
}

impl From<i64> for SqlValue {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for SqlValue {
    fn from(value: bool) -> Self {
        Self::Int(value.into())
    }
}

impl From<&str> for SqlValue {
    fn from(value: &str) -> Self {
        // PostgreSQL's texts hold no NUL: one from outside must not stop a commit.
        Self::Text(if value.contains('\0') { value.replace('\0', "\u{fffd}") } else { value.to_owned() })
    }
}

impl From<&[u8]> for SqlValue {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_owned())
    }
}

impl From<uuid::Uuid> for SqlValue {
    fn from(value: uuid::Uuid) -> Self {
        Self::Bytes(value.as_bytes().to_vec())
    }
}

impl<T: Into<SqlValue>> From<Option<T>> for SqlValue {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<ValueRef<'_>> for SqlValue {
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

impl rusqlite::ToSql for SqlValue {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl ToSql for SqlValue {
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
pub(crate) fn value_from_postgres(row: &tokio_postgres::Row, at: usize) -> SqlValue {
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
pub(crate) struct RowReader(std::vec::IntoIter<SqlValue>);

impl RowReader {
    pub(crate) fn new(row: Vec<SqlValue>) -> Self {
        Self(row.into_iter())
    }

    fn type_mismatch(what: &str) -> StoreError {
        StoreError::Rejected(format!("unexpected type in column {what}"))
    }

    pub(crate) fn int(&mut self) -> Result<i64, StoreError> {
        self.opt_int()?.ok_or_else(|| Self::type_mismatch("a number"))
    }

    pub(crate) fn opt_int(&mut self) -> Result<Option<i64>, StoreError> {
        match self.0.next() {
            Some(SqlValue::Int(number)) => Ok(Some(number)),
            Some(SqlValue::Null) => Ok(None),
            _ => Err(Self::type_mismatch("a number")),
        }
    }

    pub(crate) fn text(&mut self) -> Result<String, StoreError> {
        self.opt_text()?.ok_or_else(|| Self::type_mismatch("a text"))
    }

    pub(crate) fn opt_text(&mut self) -> Result<Option<String>, StoreError> {
        match self.0.next() {
            Some(SqlValue::Text(text)) => Ok(Some(text)),
            Some(SqlValue::Null) => Ok(None),
            _ => Err(Self::type_mismatch("a text")),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        self.opt_bytes()?.ok_or_else(|| Self::type_mismatch("bytes"))
    }

    pub(crate) fn opt_bytes(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.0.next() {
            Some(SqlValue::Bytes(bytes)) => Ok(Some(bytes)),
            Some(SqlValue::Null) => Ok(None),
            _ => Err(Self::type_mismatch("bytes")),
        }
    }

    /// A value of fixed size: an id, a hash.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        self.bytes()?.try_into().map_err(|_| Self::type_mismatch("bytes of another length"))
    }

    pub(crate) fn id(&mut self) -> Result<uuid::Uuid, StoreError> {
        Ok(uuid::Uuid::from_bytes(self.array()?))
    }

    /// A list, as JSON.
    pub(crate) fn list(&mut self) -> Result<Vec<String>, StoreError> {
        serde_json::from_str(&self.text()?).map_err(|_| Self::type_mismatch("a list"))
    }
}

/// A list as it is kept.
pub(crate) fn json_list(texts: &[String]) -> SqlValue {
    // Texts always serialise.
    SqlValue::Text(serde_json::to_string(texts).unwrap_or_else(|_| "[]".to_owned()))
}

/// A pattern for `LIKE … ESCAPE '!'`: what has this text in it, in lower case.
pub(crate) fn like_pattern(text: &str) -> SqlValue {
    let plain = text.to_lowercase().replace('!', "!!").replace('%', "!%").replace('_', "!_");
    SqlValue::Text(format!("%{plain}%"))
}

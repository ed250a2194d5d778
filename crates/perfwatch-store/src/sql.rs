//! SQL values, rows and statements that both engines understand.
//!
//! Parameters are `$1`, `$2`…, integers are `BIGINT`, flags are 0 or 1, lists and documents are JSON text.
//! Each entity is therefore written once, not once per engine.

use crate::error::StoreError;
use rusqlite::types::{ToSqlOutput, ValueRef};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// Parameter or column value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlValue {
    /// The SQL value `NULL`.
    Null,
    /// 64-bit integer. Flags are 0 and 1.
    Int(i64),
    /// Text without NUL characters.
    Text(String),
    /// String of arbitrary bytes.
    Bytes(Vec<u8>),
}

/// A statement with its parameters.
#[derive(Debug, Clone)]
pub(crate) struct SqlStatement {
    pub(crate) sql: &'static str,
    pub(crate) values: Vec<SqlValue>,
    /// A statement that affects no row is a [`crate::CommitError::Conflict`].
    pub(crate) requires_row: bool,
}

impl SqlStatement {
    /// A statement that may affect no row.
    pub(crate) fn new(sql: &'static str, values: impl IntoIterator<Item = SqlValue>) -> Self {
        Self { sql, values: values.into_iter().collect(), requires_row: false }
    }

    /// Requires at least one affected row; otherwise the commit is a conflict.
    #[must_use]
    pub(crate) fn require_row(self) -> Self {
        Self { requires_row: true, ..self }
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
        // PostgreSQL text cannot contain NUL. External text with one must not fail a commit.
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
            // The schema has no column of floating-point numbers.
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
        [Type::INT8, Type::TEXT, Type::BYTEA, Type::UNKNOWN].contains(ty)
    }

    to_sql_checked!();
}

/// Value of a column in a PostgreSQL row.
pub(crate) fn value_from_postgres(row: &tokio_postgres::Row, index: usize) -> SqlValue {
    let ty = row.columns()[index].type_();
    if *ty == Type::BYTEA {
        row.get::<_, Option<&[u8]>>(index).into()
    } else if *ty == Type::TEXT {
        row.get::<_, Option<&str>>(index).into()
    } else {
        row.get::<_, Option<i64>>(index).into()
    }
}

/// Reads the values of a row from left to right.
pub(crate) struct RowReader {
    values: std::vec::IntoIter<SqlValue>,
    /// Number of the last value read, from 1.
    column: usize,
}

impl RowReader {
    pub(crate) fn new(row: Vec<SqlValue>) -> Self {
        Self { values: row.into_iter(), column: 0 }
    }

    fn next(&mut self) -> Option<SqlValue> {
        self.column += 1;
        self.values.next()
    }

    fn type_mismatch(&self, expected: &str) -> StoreError {
        StoreError::Rejected(format!("unexpected value in column {}; expected {expected}", self.column))
    }

    pub(crate) fn int(&mut self) -> Result<i64, StoreError> {
        self.opt_int()?.ok_or_else(|| self.type_mismatch("an integer"))
    }

    pub(crate) fn opt_int(&mut self) -> Result<Option<i64>, StoreError> {
        match self.next() {
            Some(SqlValue::Int(number)) => Ok(Some(number)),
            Some(SqlValue::Null) => Ok(None),
            _ => Err(self.type_mismatch("an integer")),
        }
    }

    pub(crate) fn flag(&mut self) -> Result<bool, StoreError> {
        Ok(self.int()? != 0)
    }

    pub(crate) fn text(&mut self) -> Result<String, StoreError> {
        self.opt_text()?.ok_or_else(|| self.type_mismatch("text"))
    }

    pub(crate) fn opt_text(&mut self) -> Result<Option<String>, StoreError> {
        match self.next() {
            Some(SqlValue::Text(text)) => Ok(Some(text)),
            Some(SqlValue::Null) => Ok(None),
            _ => Err(self.type_mismatch("text")),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        self.opt_bytes()?.ok_or_else(|| self.type_mismatch("bytes"))
    }

    pub(crate) fn opt_bytes(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.next() {
            Some(SqlValue::Bytes(bytes)) => Ok(Some(bytes)),
            Some(SqlValue::Null) => Ok(None),
            _ => Err(self.type_mismatch("bytes")),
        }
    }

    /// Bytes of fixed length: an id, a hash.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        self.bytes()?.try_into().map_err(|_| self.type_mismatch(&format!("{N} bytes")))
    }

    pub(crate) fn id(&mut self) -> Result<uuid::Uuid, StoreError> {
        Ok(uuid::Uuid::from_bytes(self.array()?))
    }

    /// JSON list of strings, see [`json_list`].
    pub(crate) fn list(&mut self) -> Result<Vec<String>, StoreError> {
        serde_json::from_str(&self.text()?).map_err(|_| self.type_mismatch("a JSON list"))
    }

    /// Value of an enum that [`text_enum`] defines.
    pub(crate) fn parsed<T>(&mut self, parse: fn(&str) -> Option<T>) -> Result<T, StoreError> {
        let text = self.text()?;
        parse(&text).ok_or_else(|| self.type_mismatch(std::any::type_name::<T>()))
    }
}

/// A list of strings as JSON text.
pub(crate) fn json_list(texts: &[String]) -> SqlValue {
    // Strings always serialize.
    SqlValue::Text(serde_json::to_string(texts).unwrap_or_else(|_| "[]".to_owned()))
}

/// Pattern for `LIKE … ESCAPE '!'` that matches lower-cased text containing `text` literally.
pub(crate) fn like_pattern(text: &str) -> SqlValue {
    SqlValue::Text(format!("%{}%", escape_like(&text.to_lowercase())))
}

/// Text that `LIKE … ESCAPE '!'` matches literally.
pub(crate) fn escape_like(text: &str) -> String {
    text.replace('!', "!!").replace('%', "!%").replace('_', "!_")
}

/// Defines the enum of a state column: stored, and serialized, as the text given for each variant.
// `tt` instead of `literal`: utoipa does not see through the invisible group around a literal.
macro_rules! text_enum {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident = $text:tt,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// All values, in the order of their declaration.
            pub const ALL: [Self; [$(stringify!($variant)),+].len()] = [$(Self::$variant),+];

            /// Text that the database and the API use.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// Reverse of `name`; `None` for other text.
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|value| value.name() == name)
            }
        }

        impl From<$name> for $crate::sql::SqlValue {
            fn from(value: $name) -> Self {
                value.name().into()
            }
        }
    };
}
pub(crate) use text_enum;

//! Statements and transactions that need no session. A pooler in transaction mode runs each transaction on any of its
//! connections: what another transaction prepared or set may be on another connection, and stays there for others.
//!
//! Statements have no name: they are parsed and run in one exchange. Settings end with their transaction.

use crate::sql::SqlValue;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, GenericClient, IsolationLevel, Row, Transaction};

/// The transaction of a hub that is suspended or cut off must not lock rows for hours.
const LIMIT_IDLE_TIME: &str = "SET LOCAL idle_in_transaction_session_timeout = '60s'";

/// Parameter of a statement, sent with the type that its Rust type has in SQL.
pub(super) trait Parameter: ToSql + Sync {
    fn sql_type(&self) -> Type;
}

macro_rules! parameters {
    ($($rust:ty => $sql:ident,)+) => {
        $(impl Parameter for $rust {
            fn sql_type(&self) -> Type {
                Type::$sql
            }
        })+
    };
}

parameters! {
    i64 => INT8,
    Option<i64> => INT8,
    String => TEXT,
    &str => TEXT,
    Option<&str> => TEXT,
    &[&str] => TEXT_ARRAY,
    Vec<u8> => BYTEA,
    Option<Vec<u8>> => BYTEA,
    Vec<Vec<u8>> => BYTEA_ARRAY,
    Vec<i32> => INT4_ARRAY,
    Vec<i64> => INT8_ARRAY,
}

impl Parameter for SqlValue {
    fn sql_type(&self) -> Type {
        match self {
            // The server infers it.
            Self::Null => Type::UNKNOWN,
            Self::Int(_) => Type::INT8,
            Self::Text(_) => Type::TEXT,
            Self::Bytes(_) => Type::BYTEA,
        }
    }
}

fn typed<'a>(parameters: &[&'a dyn Parameter]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    parameters.iter().map(|parameter| (*parameter as _, parameter.sql_type())).collect()
}

/// Statements of a client or of a transaction.
pub(super) trait Statements: GenericClient {
    /// Runs a statement and returns its rows.
    async fn fetch_all(&self, sql: &str, parameters: &[&dyn Parameter]) -> Result<Vec<Row>, Error> {
        self.client().query_typed(sql, &typed(parameters)).await
    }

    /// Runs a statement that returns one row.
    async fn fetch_one(&self, sql: &str, parameters: &[&dyn Parameter]) -> Result<Row, Error> {
        self.client().query_typed_one(sql, &typed(parameters)).await
    }

    /// Runs a statement that returns at most one row.
    async fn fetch_opt(&self, sql: &str, parameters: &[&dyn Parameter]) -> Result<Option<Row>, Error> {
        self.client().query_typed_opt(sql, &typed(parameters)).await
    }

    /// Runs a statement and returns the number of affected rows.
    async fn run(&self, sql: &str, parameters: &[&dyn Parameter]) -> Result<u64, Error> {
        self.client().execute_typed(sql, &typed(parameters)).await
    }
}

impl<T: GenericClient> Statements for T {}

/// Starts a transaction.
pub(super) async fn begin(client: &mut Client) -> Result<Transaction<'_>, Error> {
    let tx = client.transaction().await?;
    tx.batch_execute(LIMIT_IDLE_TIME).await?;
    Ok(tx)
}

/// Starts a transaction that reads as of one point in time.
pub(super) async fn begin_read(client: &mut Client) -> Result<Transaction<'_>, Error> {
    let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
    let tx = builder.read_only(true).start().await?;
    tx.batch_execute(LIMIT_IDLE_TIME).await?;
    Ok(tx)
}

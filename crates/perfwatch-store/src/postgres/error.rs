//! Error texts of the PostgreSQL client.

use crate::error::StoreError;

pub(super) fn unavailable(error: &tokio_postgres::Error) -> StoreError {
    // The message of the server if there is any. The client's own text is only "db error".
    let text = error.as_db_error().map_or_else(|| error_chain(error), |error| error.message().to_owned());
    StoreError::Unavailable(text)
}

/// Message of an error and its causes, separated by colons.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

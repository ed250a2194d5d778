//! Error texts of the PostgreSQL client.

use crate::error::StoreError;
use perfwatch_postgres::error_chain;
use tokio_postgres::Error;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        // The message of the server if there is any. The client's own text is only "db error".
        let text =
            error.as_db_error().map_or_else(|| error_chain(&error), |error| error.message().to_owned());
        Self::Unavailable(text)
    }
}

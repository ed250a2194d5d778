//! Error texts of the PostgreSQL client.

use crate::error::StoreError;
use tokio_postgres::Error;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        // The message of the server if there is any. The client's own text is only "db error".
        let text =
            error.as_db_error().map_or_else(|| error_chain(&error), |error| error.message().to_owned());
        Self::Unavailable(text)
    }
}

/// Message of a failed connection, with the parameters of the URL that concern TLS.
pub(super) fn connection_error(error: &dyn std::error::Error) -> String {
    let text = error_chain(error);
    let advice = if text.contains("server does not support TLS") {
        "servers on other machines must use TLS with a verified certificate, unless the URL ends with \
         ?sslmode=disable (trusted networks only)"
    } else if text.contains("invalid peer certificate") {
        "the certificate must be valid for the host in the URL; ?sslrootcert=FILE names its CA, and \
         ?sslmode=disable turns TLS off (trusted networks only)"
    } else {
        return text;
    };
    format!("{text}; {advice}")
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

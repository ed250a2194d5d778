//! Texts of errors.

/// Message of a failed connection, with the parameters of the URL that concern TLS.
pub fn connection_error(error: &dyn std::error::Error) -> String {
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
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

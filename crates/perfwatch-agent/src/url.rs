//! URL of the hub and the certificate authorities that are trusted for it.

use crate::error::AgentConfigError;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

/// Validated base URL of a hub with the root certificates of its TLS connections.
pub(crate) struct HubUrl {
    /// Base URL without a trailing slash.
    pub(crate) base: String,
    /// Base URL for logs, without user, password and query.
    pub(crate) label: String,
    pub(crate) root_certs: RootCerts,
}

impl HubUrl {
    /// Validates `http://…` or `https://…` and reads the CA file, if any.
    ///
    /// # Errors
    /// Fails if the URL has another scheme or no host, if `ca` is set for `http://`, or if the
    /// file contains no certificate.
    pub(crate) fn parse(url: &str, ca: Option<&Path>) -> Result<Self, AgentConfigError> {
        let fail = |key, message: String| Err(AgentConfigError { key, message });
        let is_tls = match url.split_once("://") {
            Some(("http", authority)) if !authority.is_empty() => false,
            Some(("https", authority)) if !authority.is_empty() => true,
            _ => {
                let url = redact_url(url);
                let message = format!("invalid URL {url:?}; expected one such as https://hub.example:8000");
                return fail("hub", message);
            }
        };
        if ca.is_some() && !is_tls {
            return fail("ca", "requires an https:// URL".to_owned());
        }
        let root_certs = match ca {
            None => RootCerts::PlatformVerifier,
            Some(path) => match load_ca_certificates(path) {
                Ok(certificates) => RootCerts::Specific(Arc::new(certificates)),
                Err(error) => return fail("ca", format!("{}: {error}", path.display())),
            },
        };
        let base = url.trim_end_matches('/').to_owned();
        Ok(Self { label: redact_url(&base), base, root_certs })
    }
}

/// Returns whether a URL leads to another machine without encryption.
pub fn is_unencrypted(url: &str) -> bool {
    let Some(authority) = url.strip_prefix("http://") else { return false };
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_loopback = host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    !is_loopback && !host.eq_ignore_ascii_case("localhost")
}

/// Replaces user, password and query of a URL, which may be secret.
pub(crate) fn redact_url(url: &str) -> String {
    let (scheme, remaining) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let separator = if scheme.is_empty() { "" } else { "://" };
    let (address, query) = remaining.split_at(remaining.find(['?', '#']).unwrap_or(remaining.len()));
    let query = if query.is_empty() { "" } else { "?***" };
    // A password may contain slashes and at signs that are not encoded.
    match address.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}{separator}***@{host}{query}"),
        None => format!("{scheme}{separator}{address}{query}"),
    }
}

fn load_ca_certificates(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| error.to_string())? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() { Err("no PEM certificate found".to_owned()) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Agents whose hub is `http://` on another machine.
    #[test]
    fn plain_http_to_another_machine_is_unencrypted() {
        for (url, expected) in [
            ("http://hub.example:8000", true),
            ("http://192.0.2.1/base", true),
            ("http://[2001:db8::1]:8000", true),
            ("http://user:127.0.0.1@hub.example", true),
            ("http://127.0.0.1.example", true),
            ("https://hub.example", false),
            ("http://127.0.0.1:8000", false),
            ("http://127.1.2.3", false),
            ("http://LOCALHOST:8000/base", false),
            ("http://[::1]:8000", false),
            ("http://[::ffff:127.0.0.1]:8000", false),
        ] {
            assert_eq!(is_unencrypted(url), expected, "{url}");
        }
    }

    #[test]
    fn secrets_of_a_url_are_redacted() {
        for (url, expected) in [
            ("https://hub.example:8000/base", "https://hub.example:8000/base"),
            ("https://alice:hunter2@hub:8000/base", "https://***@hub:8000/base"),
            ("https://hunter2@hub", "https://***@hub"),
            ("https://a:hun/ter@2@hub", "https://***@hub"),
            ("alice:hunter2@hub", "***@hub"),
            ("https://hub/?token=hunter2", "https://hub/?***"),
            ("https://hub/#hunter2", "https://hub/?***"),
        ] {
            assert_eq!(redact_url(url), expected);
        }
    }

    #[test]
    fn url_and_ca_file_are_validated() {
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("empty.pem");
        std::fs::write(&empty, "nothing").unwrap();
        for (url, ca, key) in [
            ("ftp://hub", None, Some("hub")),
            ("hub:8000", None, Some("hub")),
            ("https://", None, Some("hub")),
            ("http://hub:8000", Some(empty.as_path()), Some("ca")),
            ("https://hub:8000", Some(empty.as_path()), Some("ca")),
            ("https://hub:8000", Some(Path::new("/nowhere")), Some("ca")),
            ("https://hub:8000", None, None),
            ("http://hub:8000/", None, None),
        ] {
            assert_eq!(HubUrl::parse(url, ca).err().map(|error| error.key), key, "{url} {ca:?}");
        }
    }
}

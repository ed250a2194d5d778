//! The hub as an agent reaches it: HTTP or TLS with certificates verified, its own secret along,
//! and how it got that secret.

use crate::config::AgentConfigError;
use perfwatch_model::HostId;
use rustls::crypto::aws_lc_rs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// Starts every token that lets agents in for the first time.
pub const ENROLLMENT_TOKEN_PREFIX: &str = "pwe_";
/// An answer is small; more than this is no hub's.
const MAX_RESPONSE_BYTES: u64 = 1 << 20;

/// One hub.
#[derive(Clone)]
pub struct HubClient {
    http: ureq::Agent,
    base: String,
}

/// What it answered.
pub struct HubResponse {
    /// HTTP status.
    pub status: u16,
    /// JSON, from a hub.
    pub body: String,
    /// When to come again.
    pub retry_after: Option<Duration>,
}

impl HubResponse {
    /// A member of the error's envelope: `code` or `message`; empty where there is none.
    pub fn error(&self, key: &str) -> String {
        let json: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        json["error"][key].as_str().unwrap_or_default().chars().take(300).collect()
    }
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The hub says no.
    #[error("enrollment rejected: {0}")]
    Refused(String),
    /// The hub can't be reached, or is busy.
    #[error("{0}")]
    Retry(String),
}

impl HubClient {
    /// A hub at `http://…` or `https://…`; with `ca`, its certificate must come from one of that
    /// file (PEM), else from one that this system trusts.
    ///
    /// # Errors
    /// An address that is none, a file without certificates.
    pub fn new(url: &str, ca: Option<&Path>) -> Result<Self, AgentConfigError> {
        let fail = |key, message: String| Err(AgentConfigError { key, message });
        let secure = match url.split_once("://") {
            Some(("http", rest)) if !rest.is_empty() => false,
            Some(("https", rest)) if !rest.is_empty() => true,
            _ => return fail("hub", format!("{url:?} is not an address such as https://hub.example:8000")),
        };
        if ca.is_some() && !secure {
            return fail("ca", "only an https:// address has a certificate to check".to_owned());
        }
        let roots = match ca {
            None => RootCerts::PlatformVerifier,
            Some(path) => match load_ca_certificates(path) {
                Ok(roots) => RootCerts::Specific(Arc::new(roots)),
                Err(why) => return fail("ca", format!("{}: {why}", path.display())),
            },
        };
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
            .root_certs(roots)
            .build();
        let http = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(Duration::from_secs(20)))
            .max_idle_connections(1)
            // A proxy from the environment would see this host's process list; a hub is reached directly.
            .proxy(None)
            // The secret goes to this hub, and to none that it names.
            .max_redirects(0)
            .tls_config(tls)
            .user_agent(concat!("perfwatch-agent/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { http, base: url.trim_end_matches('/').to_owned() })
    }

    /// Its address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Posts once.
    ///
    /// # Errors
    /// It can't be reached, or its answer can't be read.
    pub fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        secret: Option<&str>,
        body: &[u8],
    ) -> Result<HubResponse, String> {
        let mut request = self.http.post(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(secret) = secret {
            request = request.header("Authorization", format!("Bearer {secret}"));
        }
        let mut response = request.send(body).map_err(|error| error.to_string())?;
        let wait = response
            .headers()
            .get("Retry-After")
            .and_then(|wait| wait.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let mut text = String::new();
        let read = response.body_mut().as_reader().take(MAX_RESPONSE_BYTES).read_to_string(&mut text);
        read.map_err(|error| error.to_string())?;
        Ok(HubResponse { status: response.status().as_u16(), body: text, retry_after: wait })
    }

    /// Trades an enrolment token for a secret of this host's own.
    ///
    /// # Errors
    /// The hub says no, or can't be reached.
    pub fn enroll(&self, token: &str, host: HostId, name: &str) -> Result<String, EnrollError> {
        let body = serde_json::json!({ "token": token, "host_id": host, "host_name": name }).to_string();
        let headers = [("Content-Type", "application/json")];
        let answer = self
            .post("/api/v1/agents/enroll", &headers, None, body.as_bytes())
            .map_err(EnrollError::Retry)?;
        match answer.status {
            201 => {
                let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
                let secret = json["secret"].as_str().map(str::to_owned);
                secret.ok_or_else(|| EnrollError::Retry("response is not from a PerfWatch hub".to_owned()))
            }
            400..=428 if !answer.error("code").is_empty() => {
                Err(EnrollError::Refused(answer.error("message")))
            }
            status @ (307 | 308 | 301 | 302) => {
                Err(EnrollError::Retry(format!("HTTP {status}: redirected; check the hub URL (https?)")))
            }
            status => Err(EnrollError::Retry(format!("HTTP {status} {}", answer.error("message")))),
        }
    }
}

fn load_ca_certificates(path: &Path) -> Result<Vec<ureq::tls::Certificate<'static>>, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut roots = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| error.to_string())? {
            roots.push(certificate);
        }
    }
    if roots.is_empty() { Err("no certificate in it (PEM)".to_owned()) } else { Ok(roots) }
}

/// Where an agent keeps its secret.
fn secret_path(state: &Path) -> PathBuf {
    state.join("secret")
}

/// The secret it got before.
pub fn load_secret(state: &Path) -> Option<String> {
    let text = std::fs::read_to_string(secret_path(state)).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Keeps a secret for its owner alone; a crash leaves the old one or the new one.
///
/// # Errors
/// The folder can't be written.
pub fn save_secret(state: &Path, secret: &str) -> io::Result<()> {
    std::fs::create_dir_all(state)?;
    let fresh = state.join("secret.new");
    let _ = std::fs::remove_file(&fresh);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(format!("{secret}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(fresh, secret_path(state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn url_and_ca_file_are_validated() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
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
            assert_eq!(HubClient::new(url, ca).err().map(|problem| problem.key), key, "{url} {ca:?}");
        }
    }

    #[test]
    fn secret_file_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("agent");
        assert_eq!(load_secret(&state), None);
        save_secret(&state, "one").unwrap();
        save_secret(&state, "two").unwrap();
        assert_eq!(load_secret(&state).as_deref(), Some("two"));
        let mode = std::fs::metadata(state.join("secret")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

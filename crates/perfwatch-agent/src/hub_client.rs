//! HTTP client of the hub, enrollment, and the file of the agent secret. TLS certificates are always
//! verified.

use crate::error::AgentConfigError;
use crate::resolver::CachingResolver;
use crate::url::HubUrl;
use perfwatch_files::Directory;
use perfwatch_model::HostId;
use rustls::crypto::aws_lc_rs;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use ureq::RequestBuilder;
use ureq::tls::{TlsConfig, TlsProvider};
use ureq::typestate::WithBody;
use ureq::unversioned::transport::DefaultConnector;

/// Prefix of every enrollment token.
pub(crate) const ENROLLMENT_TOKEN_PREFIX: &str = "pwe_";
/// Maximum length of a response body that is read. Responses of a hub are much smaller.
const MAX_RESPONSE_BYTES: u64 = 1 << 20;
/// Maximum length of a response body of a read. A snapshot of a host with many processes is below 1 MiB.
const MAX_READ_BYTES: u64 = 8 << 20;
/// Timeout of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of a whole request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Buffer of a connection in each direction; a snapshot is usually shorter.
const CONNECTION_BUFFER_BYTES: usize = 16 << 10;
/// Maximum length of an error field that is shown or logged, in characters.
const MAX_ERROR_CHARS: usize = 300;

/// HTTP client of the hub; clones share its connection.
#[derive(Clone)]
pub struct HubClient {
    http: ureq::Agent,
    resolver: CachingResolver,
    base: String,
    label: String,
}

/// Response of the hub with its body as text.
pub struct HubResponse {
    /// Status code of the HTTP response.
    pub status: u16,
    /// Response body, JSON if it is from a hub.
    pub body: String,
    /// Delay that the header `Retry-After` requests.
    pub retry_after: Option<Duration>,
    /// Time of the hub or of its proxy, exact to the second: the header `Date`.
    pub date: Option<SystemTime>,
}

impl HubResponse {
    /// Field of the error envelope, `code` or `message`; empty if there is none.
    pub fn error(&self, key: &str) -> String {
        let json: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        json["error"][key].as_str().unwrap_or_default().chars().take(MAX_ERROR_CHARS).collect()
    }
}

/// Error of an enrollment attempt.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// Rejected permanently by the hub, with its message.
    #[error("enrollment rejected: {0}")]
    Rejected(String),
    /// Hub unreachable or overloaded; retry later.
    #[error("{0}")]
    Retry(String),
}

impl HubClient {
    /// Client for a hub at `http://…` or `https://…`. The hub's certificate must be signed by a
    /// certificate of the file `ca` (PEM), or by a certificate that the system trusts if `ca` is `None`.
    ///
    /// # Errors
    /// Fails if the URL is invalid or the file contains no certificate.
    pub fn new(url: &str, ca: Option<&Path>) -> Result<Self, AgentConfigError> {
        let HubUrl { base, label, root_certs } = HubUrl::parse(url, ca)?;
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
            .root_certs(root_certs)
            .build();
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(REQUEST_TIMEOUT))
            .max_idle_connections(1)
            // A proxy from the environment would see this host's process list.
            .proxy(None)
            // A redirect would send the secret to another server.
            .max_redirects(0)
            .tls_config(tls)
            .user_agent(concat!("perfwatch-agent/", env!("CARGO_PKG_VERSION")))
            .input_buffer_size(CONNECTION_BUFFER_BYTES)
            .output_buffer_size(CONNECTION_BUFFER_BYTES)
            .build();
        let resolver = CachingResolver::default();
        let http = ureq::Agent::with_parts(config, DefaultConnector::default(), resolver.clone());
        Ok(Self { http, resolver, base, label })
    }

    /// Base URL of the hub for logs, without user and password.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Sends one POST request, without retries.
    ///
    /// # Errors
    /// Fails if the hub is unreachable or its response cannot be read.
    pub fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        secret: Option<&str>,
        body: &[u8],
    ) -> Result<HubResponse, String> {
        let request = self.post_request(path, headers, secret);
        let response = request.send(body).map_err(|error| self.on_failure(&error))?;
        read_response(response, MAX_RESPONSE_BYTES)
    }

    /// Returns the message of an error.
    fn on_failure(&self, error: &ureq::Error) -> String {
        self.resolver.clear();
        error.to_string()
    }

    fn post_request(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        secret: Option<&str>,
    ) -> RequestBuilder<WithBody> {
        let mut request = self.http.post(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(secret) = secret {
            request = request.header("Authorization", format!("Bearer {secret}"));
        }
        request
    }

    /// Sends one GET request, without retries, with a credential if there is one; with a timeout, the whole request may
    /// last that long.
    ///
    /// # Errors
    /// Fails if the hub is unreachable or its response cannot be read.
    pub fn get(
        &self,
        path: &str,
        secret: Option<&str>,
        timeout: Option<Duration>,
    ) -> Result<HubResponse, String> {
        let mut request = self.http.get(format!("{}{path}", self.base));
        if let Some(secret) = secret {
            request = request.header("Authorization", format!("Bearer {secret}"));
        }
        if timeout.is_some() {
            request = request.config().timeout_global(timeout).build();
        }
        read_response(request.call().map_err(|error| self.on_failure(&error))?, MAX_READ_BYTES)
    }

    /// Sends one POST request whose response is a file of at most `max_bytes`; other statuses than 200 have a text.
    ///
    /// # Errors
    /// Fails if the hub is unreachable or its response cannot be read.
    pub fn post_for_file(
        &self,
        (path, body): (&str, &[u8]),
        secret: &str,
        (timeout, max_bytes): (Duration, u64),
    ) -> Result<Result<Vec<u8>, HubResponse>, String> {
        let request = self.post_request(path, &[("Content-Type", "application/json")], Some(secret));
        let request = request.config().timeout_global(Some(timeout)).build();
        let mut response = request.send(body).map_err(|error| self.on_failure(&error))?;
        if response.status() != 200 {
            return read_response(response, MAX_RESPONSE_BYTES).map(Err);
        }
        let mut file = Vec::new();
        let result = response.body_mut().as_reader().take(max_bytes).read_to_end(&mut file);
        result.map_err(|error| error.to_string())?;
        Ok(Ok(file))
    }

    /// Exchanges an enrollment token for an agent secret of this host. The secret of an earlier enrollment
    /// shows that the host is the same.
    ///
    /// # Errors
    /// Fails if the hub rejects the token or is unreachable.
    pub fn enroll(
        &self,
        token: &str,
        host: HostId,
        name: &str,
        previous_secret: Option<&str>,
    ) -> Result<String, EnrollError> {
        let mut body = serde_json::json!({ "token": token, "host_id": host, "host_name": name });
        // Older hubs reject unknown fields.
        if let Some(secret) = previous_secret {
            body["previous_secret"] = secret.into();
        }
        let body = body.to_string();
        let headers = [("Content-Type", "application/json")];
        let response = self
            .post("/api/v1/agents/enroll", &headers, None, body.as_bytes())
            .map_err(EnrollError::Retry)?;
        match response.status {
            201 => {
                let json: serde_json::Value = serde_json::from_str(&response.body).unwrap_or_default();
                let secret = json["secret"].as_str().map(str::to_owned);
                secret.ok_or_else(|| EnrollError::Retry("response is not from a PerfWatch hub".to_owned()))
            }
            400..=428 if !response.error("code").is_empty() => {
                Err(EnrollError::Rejected(response.error("message")))
            }
            status @ (307 | 308 | 301 | 302) => {
                Err(EnrollError::Retry(format!("HTTP {status}: redirected; check the hub URL (https?)")))
            }
            status => Err(EnrollError::Retry(format!("HTTP {status} {}", response.error("message")))),
        }
    }
}

/// Reads the body of a response; a longer body is cut and then invalid JSON.
fn read_response(
    mut response: ureq::http::Response<ureq::Body>,
    max_bytes: u64,
) -> Result<HubResponse, String> {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let retry_after = header("Retry-After").and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let date = header("Date").and_then(|text| httpdate::parse_http_date(text).ok());
    let mut body = String::new();
    let result = response.body_mut().as_reader().take(max_bytes).read_to_string(&mut body);
    result.map_err(|error| error.to_string())?;
    Ok(HubResponse { status: response.status().as_u16(), body, retry_after, date })
}

/// File of the agent secret.
const SECRET_FILE: &str = "secret";

/// Secret of the state directory.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredSecret {
    /// Credential of the agent.
    pub secret: String,
    /// SHA-256 of the enrollment token that was exchanged for the secret, if known.
    token_hash: Option<String>,
}

impl std::fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoredSecret(***)")
    }
}

impl StoredSecret {
    /// Secret that was received for an enrollment token, or configured.
    pub fn new(secret: String, token: Option<&str>) -> Self {
        Self { secret, token_hash: token.map(|token| sha256_hex(token.as_bytes())) }
    }

    /// Returns whether the secret was received for this enrollment token.
    pub(crate) fn is_from(&self, token: &str) -> bool {
        self.token_hash.as_deref() == Some(&sha256_hex(token.as_bytes()))
    }
}

/// SHA-256 of the bytes as hexadecimal digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Loads the stored agent secret; `None` if there is no file or it is empty. The second line is the hash of
/// the enrollment token.
pub fn load_secret(state: &Path) -> Option<StoredSecret> {
    let text = Directory::open(state).ok()?.read_to_string(SECRET_FILE).ok()?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
    Some(StoredSecret { secret: lines.next()?, token_hash: lines.next() })
}

/// Stores the agent secret, readable by the owner only. The file is replaced atomically: a crash
/// leaves the old secret or the new secret.
///
/// # Errors
/// Fails if the directory is not writable.
pub fn save_secret(state: &Path, stored: &StoredSecret) -> io::Result<()> {
    let lines = [Some(stored.secret.as_str()), stored.token_hash.as_deref()];
    let text: String = lines.into_iter().flatten().map(|line| format!("{line}\n")).collect();
    Directory::create_private(state)?.write(SECRET_FILE, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn secret_file_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("agent");
        assert_eq!(load_secret(&state), None);
        save_secret(&state, &StoredSecret::new("one".to_owned(), Some("pwe_1"))).unwrap();
        assert!(
            load_secret(&state).is_some_and(|stored| stored.is_from("pwe_1") && !stored.is_from("pwe_2"))
        );
        let stored = StoredSecret::new("two".to_owned(), None);
        save_secret(&state, &stored).unwrap();
        assert_eq!(load_secret(&state), Some(stored));
        let mode = std::fs::metadata(state.join("secret")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

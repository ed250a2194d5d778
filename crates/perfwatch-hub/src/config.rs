//! What a hub must be told; the binary reads it from files, environment and flags.

use crate::middleware::rate_limit::RateLimitConfig;
use axum::http::Uri;
use ipnet::IpNet;
use perfwatch_auth::SessionLifetimes;
use perfwatch_auth::oidc::OidcConfig;
use perfwatch_history::HistoryConfig;
use secrecy::SecretString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The hub's settings.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Where it listens. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// How often agents should send; none leaves it to them.
    pub interval: Option<Duration>,
    /// How long history is kept, and in how much space.
    pub history: HistoryConfig,
    /// How people reach the hub, where it can't tell from their requests: `https://watch.example`.
    pub public_url: Option<String>,
    /// Whose `X-Forwarded-…` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Certificate and key, to speak TLS.
    pub tls: Option<TlsFiles>,
    /// An agent runs in the same process.
    pub embedded_agent: bool,
    /// The administrator that is made where there is no account yet; without one, a link to make
    /// one is offered.
    pub initial_admin: Option<InitialAdmin>,
    /// Single sign-on.
    pub oidc: Option<OidcConfig>,
    /// How long browsers stay logged in.
    pub session_lifetimes: SessionLifetimes,
    /// How often one may come.
    pub rate_limits: RateLimitConfig,
    /// Connections at one time.
    pub max_connections: usize,
    /// Of one address.
    pub max_connections_per_address: usize,
    /// Where several hubs share what each of them saw last: `redis://:password@host:6379/0`.
    pub redis: Option<SecretString>,
    /// Keys that seal what the hub must be able to read itself: the first seals, all open.
    pub secret_keys: EncryptionKeys,
    /// Looks at hosts without an agent, at one time.
    pub collection_workers: usize,
    /// Folder with programs for agents of other machines, by the names of their architectures.
    pub downloads: PathBuf,
    /// Between two pings of a WebSocket client. One that is silent for two and a half of
    /// them is gone.
    pub ping_interval: Duration,
    /// How long a WebSocket client may take to read one message.
    pub send_timeout: Duration,
}

/// Keys that seal: the first seals, all open.
#[derive(Clone, Default)]
pub struct EncryptionKeys(pub Vec<[u8; 32]>);

impl std::fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

/// Files of a certificate, PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, and those between it and its root.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Who runs the hub, where nobody does yet.
#[derive(Clone)]
pub struct InitialAdmin {
    /// To log in with.
    pub name: String,
    /// In clear; kept as argon2id.
    pub password: String,
}

impl std::fmt::Debug for InitialAdmin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FirstAdmin({})", self.name)
    }
}

/// The hub's own address, as who asked sees it: for links and commands.
#[derive(Debug, Clone)]
pub(crate) struct BaseUrl(pub(crate) String);

/// Name and port of an address of ours.
fn public_host(url: &str) -> Option<&str> {
    let uri: Uri = url.parse().ok()?;
    let host = url.split_once("://").map(|(_, rest)| rest.trim_end_matches('/'))?;
    let plain = matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority()?.as_str() == host;
    plain.then_some(host)
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            interval: None,
            history: HistoryConfig::default(),
            public_url: None,
            trusted_proxies: Vec::new(),
            tls: None,
            initial_admin: None,
            oidc: None,
            session_lifetimes: SessionLifetimes::default(),
            rate_limits: RateLimitConfig::default(),
            max_connections: 20_000,
            max_connections_per_address: 2_000,
            redis: None,
            secret_keys: EncryptionKeys::default(),
            collection_workers: 5,
            downloads: PathBuf::from("downloads"),
            embedded_agent: false,
            ping_interval: Duration::from_secs(10),
            send_timeout: Duration::from_secs(10),
        }
    }
}

/// A setting that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct HubConfigError {
    /// Under the hub's own section.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
}

impl HubConfig {
    /// Name and port of the public address.
    pub(crate) fn public_host(&self) -> Option<&str> {
        self.public_url.as_deref().and_then(public_host)
    }

    /// The address for who asked by this name.
    pub(crate) fn base_url(&self, host: Option<&str>, secure: bool) -> BaseUrl {
        let scheme = if secure { "https" } else { "http" };
        BaseUrl(match &self.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("{scheme}://{}", host.unwrap_or("localhost")),
        })
    }

    /// Whether a hub can run with this.
    ///
    /// # Errors
    /// The first setting that can't be.
    pub fn validate(&self) -> Result<(), HubConfigError> {
        if let Some(url) = &self.public_url
            && public_host(url).is_none()
        {
            let message = format!("{url:?} is not an address such as https://watch.example");
            return Err(HubConfigError { key: "public_url", message });
        }
        let history = &self.history;
        if history.raw_retention < Duration::from_secs(3_600)
            || history.minute_retention < history.raw_retention
            || history.hour_retention < history.minute_retention
        {
            let message =
                "each retention must be at least that of the finer tier, and raw at least 1h".to_owned();
            return Err(HubConfigError { key: "history", message });
        }
        if history.budget_bytes < HistoryConfig::MIN_BUDGET_BYTES {
            let message = format!("at least {} MB", HistoryConfig::MIN_BUDGET_BYTES >> 20);
            return Err(HubConfigError { key: "history.disk_budget", message });
        }
        if let Some(interval) = self.interval
            && !(Duration::from_millis(250)..=Duration::from_secs(3600)).contains(&interval)
        {
            return Err(HubConfigError {
                key: "interval",
                message: format!("{interval:?} is not between 250 ms and 1 h"),
            });
        }
        Ok(())
    }
}

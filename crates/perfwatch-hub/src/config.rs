//! Configuration of a hub; the binary reads it from file, environment and flags.

use ipnet::IpNet;
use perfwatch_auth::SessionLifetimes;
use perfwatch_auth::oidc::OidcConfig;
use perfwatch_history::HistoryConfig;
use perfwatch_http::base_path::RESERVED_SEGMENTS;
use perfwatch_http::listener::{ConnectionTimeouts, ListenerConfig, TlsFiles};
use perfwatch_http::public_address::PublicUrl;
use perfwatch_http::rate_limit::RateLimitConfig;
use perfwatch_live::live_stream::check_url;
use perfwatch_model::outbound::OutboundPolicy;
use perfwatch_settings::ConfiguredSettings;
use secrecy::{ExposeSecret as _, SecretString};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Settings of a hub.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Listen address; port 0 selects a free port.
    pub listen: SocketAddr,
    /// Collection interval requested from agents; `None` keeps their own.
    pub interval: Option<Duration>,
    /// Retention and disk budget of the history.
    pub history: HistoryConfig,
    /// Public URL of the hub, with the path if a proxy mounts it below one: `https://watch.example/perfwatch/`.
    pub public_url: Option<String>,
    /// Proxies whose forwarding headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// `max-age` of HTTP Strict Transport Security; `None` sends no such header.
    pub hsts: Option<Duration>,
    /// Time between the request to stop and the end of the listener.
    pub shutdown_delay: Duration,
    /// Certificate and key; without them the hub serves plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Whether an agent runs in the same process.
    pub embedded_agent: bool,
    /// Enrollment token to create unless it exists.
    pub enrollment_token: Option<SecretString>,
    /// Administrator to create if none exists; without it, a setup link is offered.
    pub initial_admin: Option<InitialAdmin>,
    /// Identity provider for single sign-on.
    pub oidc: Option<OidcConfig>,
    /// Addresses that single sign-on may reach.
    pub outbound: OutboundPolicy,
    /// Lifetimes of browser sessions.
    pub session_lifetimes: SessionLifetimes,
    /// Rate limits of agents, callers and addresses.
    pub rate_limits: RateLimitConfig,
    /// Settings that the configuration sets: they are shown, and cannot be changed while the hub runs.
    pub configured: ConfiguredSettings,
    /// Maximum number of open connections.
    pub max_connections: usize,
    /// Maximum number of open connections of one address.
    pub max_connections_per_address: usize,
    /// Redis shared by several hubs: `redis://:password@host:6379/0`, or `redis+sentinel://…`.
    pub redis: Option<SecretString>,
    /// Keys that encrypt secrets at rest: the first encrypts, all decrypt.
    pub secret_keys: EncryptionKeys,
    /// Maximum number of concurrent SSH collections.
    pub collection_workers: usize,
    /// Directory with agent binaries, named `perfwatch-agent-ARCH`.
    pub downloads: PathBuf,
    /// Interval of WebSocket pings; a client is disconnected after two and a half intervals without a
    /// message.
    pub ping_interval: Duration,
    /// Time limit for a WebSocket client to receive one message.
    pub send_timeout: Duration,
}

/// Keys that encrypt secrets at rest: the first encrypts, all decrypt.
#[derive(Clone, Default)]
pub struct EncryptionKeys(pub Vec<[u8; 32]>);

impl std::fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

/// Administrator to create if none exists.
#[derive(Clone)]
pub struct InitialAdmin {
    /// User name of the administrator.
    pub name: String,
    /// Password in plain text; stored as an argon2id hash.
    pub password: String,
}

impl std::fmt::Debug for InitialAdmin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InitialAdmin({})", self.name)
    }
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            interval: None,
            history: HistoryConfig::default(),
            public_url: None,
            trusted_proxies: Vec::new(),
            hsts: None,
            shutdown_delay: Duration::ZERO,
            tls: None,
            enrollment_token: None,
            initial_admin: None,
            oidc: None,
            outbound: OutboundPolicy::default(),
            session_lifetimes: SessionLifetimes::default(),
            rate_limits: RateLimitConfig::default(),
            configured: ConfiguredSettings::default(),
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

/// Longest time between the request to stop and the end of the listener.
const MAX_SHUTDOWN_DELAY: Duration = Duration::from_mins(5);

/// Setting with an invalid value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct HubConfigError {
    /// Name of the setting in the section `hub`.
    pub key: &'static str,
    /// Error message without the name.
    pub message: String,
}

impl HubConfig {
    /// Settings of the listeners, which finish open requests for at most `drain_timeout` after the stop.
    pub(crate) fn listener(&self, drain_timeout: Duration, reload: Arc<Notify>) -> ListenerConfig {
        ListenerConfig {
            tls: self.tls.clone(),
            max_connections: self.max_connections,
            max_connections_per_address: self.max_connections_per_address,
            trusted_proxies: self.trusted_proxies.clone(),
            timeouts: ConnectionTimeouts::default(),
            drain_timeout,
            reload,
        }
    }

    /// Parts of the public URL.
    pub(crate) fn parse_public_url(&self) -> Option<PublicUrl> {
        self.public_url.as_deref().and_then(PublicUrl::parse)
    }

    fn validate_public_url(&self, url: &str) -> Result<(), HubConfigError> {
        let error = |message| Err(HubConfigError { key: "public_url", message });
        let Some(public_url) = self.parse_public_url() else {
            return error(format!(
                "{url:?} is not a URL such as https://watch.example or https://x/perfwatch/"
            ));
        };
        let segment = public_url.base_path.split('/').nth(1).unwrap_or_default();
        if RESERVED_SEGMENTS.contains(&segment) {
            return error(format!("the path must not start with /{segment}, which is a path of the hub"));
        }
        Ok(())
    }

    /// Returns whether other machines reach this address without encryption.
    pub fn is_exposed_unencrypted(&self, address: SocketAddr) -> bool {
        self.tls.is_none() && !address.ip().is_loopback() && self.trusted_proxies.is_empty()
    }

    /// Validates the combination of settings.
    ///
    /// # Errors
    /// Returns the first invalid setting.
    pub fn validate(&self) -> Result<(), HubConfigError> {
        if let Some(url) = &self.public_url {
            self.validate_public_url(url)?;
        }
        if self.shutdown_delay > MAX_SHUTDOWN_DELAY {
            let message = format!("{:?} is more than 5m", self.shutdown_delay);
            return Err(HubConfigError { key: "shutdown_delay", message });
        }
        self.history.validate().map_err(|(key, message)| HubConfigError { key, message })?;
        if let Some(url) = &self.redis {
            check_url(url.expose_secret())
                .map_err(|error| HubConfigError { key: "redis", message: error.to_string() })?;
        }
        if let Some(interval) = self.interval
            && !(Duration::from_millis(250)..=Duration::from_secs(3600)).contains(&interval)
        {
            return Err(HubConfigError {
                key: "interval",
                message: format!("{interval:?} is not between 250ms and 1h"),
            });
        }
        Ok(())
    }
}

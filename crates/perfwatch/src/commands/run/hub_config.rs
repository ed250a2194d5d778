//! Conversion of the settings to the configuration of the hub.

use super::configured::configured_settings;
use crate::config::{OidcSettings, Secret, Settings};
use crate::open_files::max_connections;
use crate::store;
use anyhow::Context as _;
use ipnet::IpNet;
use perfwatch_auth::SessionLifetimes;
use perfwatch_auth::oidc::OidcConfig;
use perfwatch_hub::{HubConfig, InitialAdmin, RateLimitConfig, TlsFiles};
use perfwatch_model::OutboundPolicy;
use perfwatch_store::accounts::Role;
use std::net::IpAddr;

/// Minimum number of connections, whatever the open file limit is.
const MIN_CONNECTIONS: usize = 100;

/// Converts and validates the settings of the hub, without its encryption keys.
pub(crate) fn hub_config(settings: &Settings) -> anyhow::Result<HubConfig> {
    let hub = &settings.hub;
    let listen = hub.listen.replace("localhost:", "127.0.0.1:").parse().with_context(|| {
        format!("hub.listen: invalid address {:?}; expected ADDRESS:PORT, such as 127.0.0.1:8000", hub.listen)
    })?;
    let tls = match (&hub.tls.cert, &hub.tls.key) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert: cert.clone(), key: key.clone() }),
        (None, None) => None,
        _ => anyhow::bail!("hub.tls: both cert and key are required"),
    };
    let initial_admin = match &hub.admin.password {
        None => None,
        Some(password) => Some(InitialAdmin {
            name: hub.admin.name.clone(),
            password: password.read().map_err(|error| anyhow::anyhow!("hub.admin.password: {error}"))?,
        }),
    };
    let enrollment_token = hub.enrollment_token.as_ref().map(Secret::read).transpose();
    let enrollment_token =
        enrollment_token.map_err(|error| anyhow::anyhow!("hub.enrollment_token: {error}"))?;
    let redis = hub.redis.as_ref().map(Secret::read).transpose();
    let redis = redis.map_err(|error| anyhow::anyhow!("hub.redis: {error}"))?;
    Ok(HubConfig {
        oidc: oidc_config(&hub.oidc)?,
        listen,
        public_url: hub.public_url.clone().filter(|url| !url.is_empty()),
        trusted_proxies: hub
            .trusted_proxies
            .iter()
            .map(|text| parse_network(text))
            .collect::<Result<_, _>>()?,
        outbound: outbound_policy(&hub.allowed_targets)?,
        hsts: hub.hsts.map(|max_age| max_age.0).filter(|max_age| !max_age.is_zero()),
        shutdown_delay: hub.shutdown_delay.0,
        tls,
        initial_admin,
        enrollment_token: enrollment_token.filter(|text| !text.is_empty()).map(Into::into),
        session_lifetimes: SessionLifetimes {
            idle_timeout: hub.sessions.idle_timeout.0,
            max_age: hub.sessions.max_age.0,
        },
        rate_limits: RateLimitConfig {
            agent_per_second: hub.limits.agent_requests_per_second,
            ingest_per_second: hub.limits.ingest_requests_per_second,
            api_per_second: hub.limits.api_requests_per_second,
        },
        max_connections: hub.limits.max_connections.min(raise_open_file_limit().unwrap_or(usize::MAX)),
        max_connections_per_address: hub.limits.max_connections_per_address,
        downloads: settings.data.join("downloads"),
        redis: redis.filter(|url| !url.is_empty()).map(Into::into),
        collection_workers: hub.agentless.workers.clamp(1, 100),
        interval: hub.interval.map(|interval| interval.0),
        configured: configured_settings(settings),
        history: store::history_config(settings),
        ..HubConfig::default()
    })
}

fn outbound_policy(allowed: &[String]) -> anyhow::Result<OutboundPolicy> {
    OutboundPolicy::new(allowed.iter().map(String::as_str))
        .map_err(|text| anyhow::anyhow!("hub.allowed_targets: {text:?} is not an address or CIDR range"))
}

fn parse_network(text: &str) -> anyhow::Result<IpNet> {
    let network = text.parse::<IpNet>().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)));
    network.with_context(|| format!("hub.trusted_proxies: {text:?} is not an address or CIDR range"))
}

/// Raises the open file limit, which is often 1,024 by default (getrlimit(2)). Returns the number
/// of connections that fit beside other open files; none if the limit is infinite.
fn raise_open_file_limit() -> Option<usize> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum.or(limit.current);
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "failed to raise the open file limit");
    }
    let open_files = usize::try_from(getrlimit(Resource::Nofile).current?).ok()?;
    Some(max_connections(open_files).max(MIN_CONNECTIONS))
}

fn oidc_config(oidc: &OidcSettings) -> anyhow::Result<Option<OidcConfig>> {
    let Some(issuer) = oidc.issuer.clone().filter(|issuer| !issuer.is_empty()) else { return Ok(None) };
    let secret = oidc.client_secret.as_ref().map(Secret::read).transpose();
    let default_role = match oidc.default_role.as_deref().filter(|role| !role.is_empty()) {
        None => None,
        Some(role) => Some(
            Role::parse(role).context("hub.oidc.default_role: expected viewer, operator, admin or empty")?,
        ),
    };
    Ok(Some(OidcConfig {
        issuer,
        client_id: oidc.client_id.clone(),
        client_secret: secret.map_err(|error| anyhow::anyhow!("hub.oidc.client_secret: {error}"))?,
        name: oidc.name.clone(),
        scopes: oidc.scopes.clone(),
        role_claim: oidc.role_claim.clone(),
        admins: oidc.admins.clone(),
        operators: oidc.operators.clone(),
        viewers: oidc.viewers.clone(),
        default_role,
    }))
}

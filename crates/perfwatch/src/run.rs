//! The long-running roles: everything in one, the hub, the agent.

use crate::config::Settings;
use crate::shutdown::Shutdown;
use anyhow::Context as _;
use perfwatch_agent::Agent;
use perfwatch_model::SystemClock;
use std::sync::Arc;

/// The agent until a signal.
pub(crate) fn agent(settings: &Settings) -> anyhow::Result<()> {
    let shutdown = Shutdown::install()?;
    let config = settings.agent_config().map_err(anyhow::Error::msg)?;
    let agent = Agent::start(&config, Arc::new(SystemClock::new()), shutdown.trigger()).context("agent")?;
    shutdown.wait();
    let revoked = agent.revoked();
    agent.stop();
    if revoked { Err(Revoked.into()) } else { Ok(()) }
}

/// The hub does not want this agent any more: starting it again is of no use.
#[derive(Debug, thiserror::Error)]
#[error("the hub revoked this agent; enroll it again with --token")]
pub(crate) struct Revoked;

#[cfg(feature = "hub")]
pub(crate) use with_hub::{all, hub};

#[cfg(feature = "hub")]
mod with_hub {
    use super::*;
    use crate::config::{OidcSettings, Secret};
    use crate::store;
    use ipnet::IpNet;
    use perfwatch_hub::{
        Hub, HubConfig, HubDependencies, InitialAdmin, OidcConfig, RateLimitConfig, SessionLifetimes,
        TlsFiles,
    };
    use perfwatch_model::Clock;
    use perfwatch_store::accounts::Role;
    use std::net::{IpAddr, SocketAddr};
    use tokio::runtime::Runtime;

    /// The hub until a signal.
    pub(crate) fn hub(settings: &Settings) -> anyhow::Result<()> {
        let shutdown = Shutdown::install()?;
        let (runtime, hub) = start(settings, Arc::new(SystemClock::new()), false)?;
        say_where(&hub);
        shutdown.wait();
        runtime.block_on(hub.stop());
        Ok(())
    }

    /// Hub and agent until a signal. The agent is the same as on any other host; it only finds
    /// its hub by itself.
    pub(crate) fn all(settings: &Settings) -> anyhow::Result<()> {
        let shutdown = Shutdown::install()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (runtime, hub) = start(settings, clock.clone(), true)?;
        let mut config = settings.agent_config().map_err(anyhow::Error::msg)?;
        config.hub = hub.loopback_url();
        config.token = Some(hub.embedded_agent_secret());
        config.ca = None;
        let agent = Agent::start(&config, clock, || {}).context("agent")?;
        say_where(&hub);
        shutdown.wait();
        // The agent first: its last snapshot still finds the hub.
        agent.stop();
        runtime.block_on(hub.stop());
        Ok(())
    }

    fn start(settings: &Settings, clock: Arc<dyn Clock>, own_agent: bool) -> anyhow::Result<(Runtime, Hub)> {
        let listen = settings.hub.listen.replace("localhost:", "127.0.0.1:").parse().with_context(|| {
            format!("hub.listen: {:?} is not ADDRESS:PORT, such as 127.0.0.1:8000", settings.hub.listen)
        })?;
        let config = HubConfig { embedded_agent: own_agent, ..config(settings, listen)? };
        let catalog = Arc::new(perfwatch_collect::catalog(perfwatch_agent::METRICS));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("runtime")?;
        let store = runtime.block_on(store::open(settings, clock.clone()))?;
        let notifier = Arc::new(perfwatch_notify::ChannelNotifier::new());
        let remote = Arc::new(perfwatch_ssh::SshCollector::new(clock.clone()));
        let deps = HubDependencies { store, clock, catalog, notifier, remote_collector: remote };
        let hub = runtime.block_on(Hub::start(config, deps)).context("hub")?;
        Ok((runtime, hub))
    }

    fn config(settings: &Settings, listen: SocketAddr) -> anyhow::Result<HubConfig> {
        let hub = &settings.hub;
        let network = |text: &String| {
            let network =
                text.parse::<IpNet>().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)));
            network.with_context(|| format!("hub.trusted_proxies: {text:?} is no address or network"))
        };
        let tls = match (&hub.tls.cert, &hub.tls.key) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert: cert.clone(), key: key.clone() }),
            (None, None) => None,
            _ => anyhow::bail!("hub.tls: it takes both, cert and key"),
        };
        let first_admin = match &hub.admin.password {
            None => None,
            Some(password) => Some(InitialAdmin {
                name: hub.admin.name.clone(),
                password: password.read().map_err(|why| anyhow::anyhow!("hub.admin.password: {why}"))?,
            }),
        };
        let redis = hub.redis.as_ref().map(Secret::read).transpose();
        let redis = redis.map_err(|why| anyhow::anyhow!("hub.redis: {why}"))?;
        Ok(HubConfig {
            oidc: oidc(&hub.oidc)?,
            listen,
            public_url: hub.public_url.clone().filter(|url| !url.is_empty()),
            trusted_proxies: hub.trusted_proxies.iter().map(network).collect::<Result<_, _>>()?,
            tls,
            initial_admin: first_admin,
            session_lifetimes: SessionLifetimes {
                idle_timeout: hub.sessions.idle_timeout.0,
                max_age: hub.sessions.max_age.0,
            },
            rate_limits: RateLimitConfig {
                agent_per_second: hub.limits.agent_requests_per_second,
                ingest_per_second: hub.limits.ingest_requests_per_second,
                api_per_second: hub.limits.api_requests_per_second,
            },
            max_connections: hub.limits.max_connections.min(raise_file_handles().unwrap_or(usize::MAX)),
            max_connections_per_address: hub.limits.max_connections_per_address,
            downloads: settings.data.join("downloads"),
            redis: redis.filter(|url| !url.is_empty()).map(Into::into),
            secret_keys: crate::encryption_keys::load_or_create(settings)?,
            collection_workers: hub.agentless.workers.clamp(1, 100),
            interval: hub.interval.map(|time| time.0),
            history: store::history_config(settings),
            ..HubConfig::default()
        })
    }

    /// Raises the limit of open files, which is often 1,024 at first (getrlimit(2)). How many
    /// connections there is room for beside the files; none where that has no bound.
    fn raise_file_handles() -> Option<usize> {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        let most = limit.maximum;
        limit.current = most.or(limit.current);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "failed to raise the open file limit");
        }
        let handles = usize::try_from(getrlimit(Resource::Nofile).current?).ok()?;
        Some(handles.saturating_sub(200).max(100))
    }

    fn oidc(oidc: &OidcSettings) -> anyhow::Result<Option<OidcConfig>> {
        let Some(issuer) = oidc.issuer.clone().filter(|issuer| !issuer.is_empty()) else { return Ok(None) };
        let secret = oidc.client_secret.as_ref().map(Secret::read).transpose();
        let default_role = match oidc.default_role.as_deref().filter(|role| !role.is_empty()) {
            None => None,
            Some(role) => {
                Some(Role::parse(role).context("hub.oidc.default_role: viewer, operator, admin or empty")?)
            }
        };
        Ok(Some(OidcConfig {
            issuer,
            client_id: oidc.client_id.clone(),
            client_secret: secret.map_err(|why| anyhow::anyhow!("hub.oidc.client_secret: {why}"))?,
            name: oidc.name.clone(),
            scopes: oidc.scopes.clone(),
            role_claim: oidc.role_claim.clone(),
            admins: oidc.admins.clone(),
            operators: oidc.operators.clone(),
            viewers: oidc.viewers.clone(),
            default_role,
        }))
    }

    #[expect(clippy::print_stdout, reason = "what a person at the terminal is to open")]
    fn say_where(hub: &Hub) {
        println!("PerfWatch {} is listening on {}", env!("CARGO_PKG_VERSION"), hub.url());
        if let Some(path) = hub.setup_path() {
            println!("No users yet. Create the first administrator:\n\n    {}{path}\n", hub.url());
        }
    }
}

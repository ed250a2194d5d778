//! Start and stop: binds, wires the rooms, serves, drains.

use crate::app::App;
use crate::config::{HubConfig, HubConfigError, InitialAdmin};
use crate::ingest::{Pipeline, PipelineDeps};
use crate::listener::{Listener, serve};
use crate::middleware::rate_limit::RateLimiters;
use crate::router::router;
use crate::self_metrics::SelfMetrics;
use perfwatch_agentless::Agentless;
use perfwatch_alerting::{Alerting, AlertingDeps};
use perfwatch_auth::AuthDirectory;
use perfwatch_auth::encryption::Keyring;
use perfwatch_auth::login::LoginService;
use perfwatch_auth::oidc::OidcProvider;
use perfwatch_history::History;
use perfwatch_live::LiveFeed;
use perfwatch_live::cache::Cache;
use perfwatch_live::host_registry::HostRegistry;
use perfwatch_model::remote_collector::RemoteCollector;
use perfwatch_model::{Catalog, Clock, limits};
use perfwatch_rules::notification::Notifier;
use perfwatch_store::accounts::Role;
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::{CommitError, Store, StoreError, settings};
use secrecy::ExposeSecret;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What stands behind the hub's ports.
pub struct HubDependencies {
    /// What it remembers.
    pub store: Arc<dyn Store>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The metrics its agents may know.
    pub catalog: Arc<Catalog>,
    /// Who brings messages out.
    pub notifier: Arc<dyn Notifier>,
    /// Who looks at hosts without an agent.
    pub remote_collector: Arc<dyn RemoteCollector>,
}

/// Why a hub can't start.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A setting that can't be.
    #[error(transparent)]
    Config(#[from] HubConfigError),
    /// The address is taken or not ours.
    #[error("can't listen on {address}: {error}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// A certificate that can't be used.
    #[error("hub.tls: {0}")]
    Tls(std::io::Error),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A running hub.
pub struct Hub {
    address: SocketAddr,
    /// Where its own agent finds it, where that needs no certificate.
    loopback_address: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: TaskTracker,
    directory: Arc<AuthDirectory>,
    tls: bool,
    server: JoinHandle<std::io::Result<()>>,
}

/// How long clients get to take their last words.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How often what is older than the live window is let go.
const PRUNE_INTERVAL: Duration = Duration::from_secs(15);

impl Hub {
    /// Binds and serves.
    ///
    /// # Errors
    /// A setting that can't be, an address that is taken, a store that does not answer.
    pub async fn start(config: HubConfig, deps: HubDependencies) -> Result<Self, HubError> {
        config.validate()?;
        let listen = config.listen;
        let bind = |error| HubError::Bind { address: listen, error };
        let listener = TcpListener::bind(listen).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let vault = Arc::new(Keyring::new(&config.secret_keys.0));
        let people = AuthDirectory::open(
            deps.store.clone(),
            deps.clock.clone(),
            vault.clone(),
            config.session_lifetimes,
        )
        .await?;
        if let Some(admin) = &config.initial_admin {
            create_initial_admin(&people, admin).await?;
        }
        let app =
            build_app(config, deps, (people.clone(), vault), (address, stop.clone(), tasks.clone())).await?;
        app.history.start(&tasks, &stop);
        app.alerting.start(&tasks, &stop);
        app.agentless.start(&tasks, &stop);
        tasks.spawn(prune_loop(app.clone()));
        tasks.spawn(people.clone().run(stop.clone()));
        let tls = app.config.tls.is_some();
        if !tls && !address.ip().is_loopback() && app.config.trusted_proxies.is_empty() {
            tracing::warn!(%address, "TLS is disabled; passwords and data are sent unencrypted. Set hub.tls or use a TLS proxy");
        }
        let config = app.config.clone();
        let router = router(app);
        let inside = match tls && config.embedded_agent {
            true => Some(open_loopback_listener(router.clone(), &config, &stop, &tasks)?),
            false => None,
        };
        let served = serve(listener, Listener::Public, router, &config, &stop, DRAIN_TIMEOUT)
            .map_err(HubError::Tls)?;
        let server = tokio::spawn(served);
        tracing::info!(%address, tls, "hub started");
        Ok(Self { address, loopback_address: inside, stop, tasks, directory: people, tls, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where a browser of this machine finds it.
    pub fn url(&self) -> String {
        local_url(self.address, self.tls)
    }

    /// Where an agent of this process finds it.
    pub fn loopback_url(&self) -> String {
        self.loopback_address.map_or_else(|| self.url(), |address| format!("http://{address}"))
    }

    /// The secret of the agent in this process: made anew at each start, never written down.
    pub fn embedded_agent_secret(&self) -> String {
        self.directory.embedded_agent_secret().to_owned()
    }

    /// Path of the page that makes the first administrator, while there is none. The secret stands
    /// behind `#`: browsers keep that to themselves, so no log on the way has it.
    pub fn setup_path(&self) -> Option<String> {
        self.directory.setup_secret().map(|secret| format!("/setup#{secret}"))
    }

    /// Takes no more requests, says goodbye to live clients, and waits for both, but not
    /// for ever.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        let drained = async {
            self.tasks.wait().await;
            self.server.await
        };
        match tokio::time::timeout(DRAIN_TIMEOUT, drained).await {
            Ok(Ok(Ok(()))) => tracing::info!("hub stopped"),
            Ok(Ok(Err(error))) => tracing::warn!(%error, "hub stopped after a listener error"),
            Ok(Err(error)) => tracing::error!(%error, "hub listener panicked"),
            Err(_) => tracing::warn!("hub stopped before all clients disconnected"),
        }
    }
}

/// Reads what the store has into all rooms.
async fn build_app(
    config: HubConfig,
    deps: HubDependencies,
    (people, vault): (Arc<AuthDirectory>, Arc<Keyring>),
    (address, stop, tasks): (SocketAddr, CancellationToken, TaskTracker),
) -> Result<Arc<App>, HubError> {
    let HubDependencies { store, clock, catalog, notifier, remote_collector: remote } = deps;
    let metrics = Arc::new(SelfMetrics::new());
    let live = Arc::new(LiveFeed::new());
    let cache = open_cache(&config, &*store, clock.clone(), &metrics).await?;
    let fleet = Arc::new(HostRegistry::open(store.clone()).await?);
    let history =
        History::open(store.clone(), clock.clone(), config.history.clone(), metrics.history.clone()).await?;
    restore_recent_window(&history, &fleet, &live, clock.wall_ms()).await?;
    let rooms = AlertingDeps {
        store: store.clone(),
        clock: clock.clone(),
        catalog: catalog.clone(),
        directory: people.clone(),
        hosts: fleet.clone(),
        live_feed: live.clone(),
        history: history.clone(),
        notifier,
        keyring: vault.clone(),
        base_url: notification_base_url(&config, address),
    };
    let alerting = Alerting::open(rooms, metrics.alerts.clone()).await?;
    let pipeline = Arc::new(Pipeline::new(PipelineDeps {
        history: history.clone(),
        fleet: fleet.clone(),
        live: live.clone(),
        alerting: alerting.clone(),
        catalog: catalog.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        interval: config.interval,
    }));
    let rooms = perfwatch_agentless::AgentlessDeps {
        store,
        clock: clock.clone(),
        hosts: fleet.clone(),
        live_feed: live.clone(),
        alerting: alerting.clone(),
        sink: pipeline.clone(),
        collector: remote,
        keyring: vault,
        cache: cache.clone(),
    };
    let servers = Agentless::new(rooms, metrics.servers.clone(), config.collection_workers);
    servers.reencrypt().await?;
    servers.reconcile().await?;
    let login = LoginService::new(people.clone(), clock.clone());
    Ok(Arc::new(App {
        started: clock.monotonic(),
        directory: people,
        login,
        rate_limiters: RateLimiters::new(config.rate_limits),
        oidc: config.oidc.clone().map(|oidc| Arc::new(OidcProvider::new(oidc))),
        config,
        clock,
        catalog,
        hosts: fleet,
        pipeline,
        history,
        live_feed: live,
        cache,
        alerting,
        agentless: servers,
        metrics,
        decompression_permits: Semaphore::new(limits::MAX_CONCURRENT_DECOMPRESSIONS),
        decoded_bytes_permits: Arc::new(Semaphore::new(limits::MAX_DECODED_BYTES >> 10)),
        stop,
        tasks,
    }))
}

/// What is known for a while, with all hubs on this store.
async fn open_cache(
    config: &HubConfig,
    store: &dyn Store,
    clock: Arc<dyn Clock>,
    metrics: &SelfMetrics,
) -> Result<Arc<Cache>, HubError> {
    let redis = config.redis.as_ref().map(ExposeSecret::expose_secret);
    let site = settings::installation_id(store).await?;
    Ok(Arc::new(
        Cache::open(redis, &site, clock, metrics.cache.clone())
            .map_err(|error| HubConfigError { key: "redis", message: error.to_string() })?,
    ))
}

/// An address as a browser of this machine asks for it.
fn local_url(mut address: SocketAddr, tls: bool) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{}://{address}", if tls { "https" } else { "http" })
}

/// Where links in messages lead.
fn notification_base_url(config: &HubConfig, address: SocketAddr) -> String {
    let own = || local_url(address, config.tls.is_some());
    config.public_url.as_deref().map_or_else(own, |url| url.trim_end_matches('/').to_owned())
}

/// A door for the agent of this process, where everyone else's asks for TLS.
fn open_loopback_listener(
    router: axum::Router,
    config: &HubConfig,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<SocketAddr, HubError> {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bind = |error| HubError::Bind { address: loopback, error };
    let listener = TcpListener::bind(loopback).map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    tasks.spawn(
        serve(listener, Listener::Loopback, router, config, stop, DRAIN_TIMEOUT).map_err(HubError::Tls)?,
    );
    Ok(address)
}

/// The administrator that the configuration names, where there is no account yet.
async fn create_initial_admin(people: &Arc<AuthDirectory>, admin: &InitialAdmin) -> Result<(), HubError> {
    if people.snapshot().has_admin_except(None) {
        return Ok(());
    }
    let problem = |message: String| HubConfigError { key: "admin", message };
    let account = people.new_account(&admin.name, Role::Admin, admin.password.clone()).await;
    let account = account.map_err(|error| problem(error.to_string()))?;
    let entry = AuditEntry {
        actor: "configuration".to_owned(),
        action: "user.create".to_owned(),
        object: format!("user {}", account.name),
        ..AuditEntry::default()
    };
    match people.begin_write().await?.commit([account.insert()], Some(entry)).await {
        Ok(()) => Ok(()),
        // Another hub of the same configuration was first.
        Err(CommitError::Conflict) if people.snapshot().has_admin_except(None) => Ok(()),
        Err(CommitError::Conflict) => {
            Err(problem(format!("there is another user called {:?}", account.name)).into())
        }
        Err(CommitError::Store(error)) => Err(error.into()),
    }
}

/// The last minutes of each host stand in the live window again, whether they are in blocks
/// or not.
async fn restore_recent_window(
    history: &History,
    fleet: &HostRegistry,
    live: &LiveFeed,
    now_ms: i64,
) -> Result<(), StoreError> {
    let since_ms = now_ms - limits::RECENT_WINDOW_MS;
    for host in fleet.list() {
        let rows = history.recent(host.record.id, host.record.last_snapshot_ms, since_ms).await?;
        let name: Arc<str> = host.record.name.into();
        for row in rows {
            live.restore(host.record.id, &name, row, now_ms);
        }
    }
    Ok(())
}

async fn prune_loop(app: Arc<App>) {
    let mut ticks = tokio::time::interval(PRUNE_INTERVAL);
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            _ = ticks.tick() => {
                app.live_feed.prune(app.clock.wall_ms());
                app.pipeline.prune();
                app.rate_limiters.prune();
                app.cache.prune();
            }
        }
    }
}

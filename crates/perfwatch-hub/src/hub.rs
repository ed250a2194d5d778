//! Start and stop: binds, wires the rooms, serves, drains.

use crate::alerting::{Alerting, Rooms};
use crate::app::App;
use crate::auth::oidc::Oidc;
use crate::auth::throttle::Throttle;
use crate::auth::{Limits, People};
use crate::cache::Cache;
use crate::config::{FirstAdmin, HubConfig, HubProblem};
use crate::fleet::Fleet;
use crate::history::History;
use crate::ingest::{Parts, Pipeline};
use crate::live::Live;
use crate::router::router;
use crate::self_metrics::SelfMetrics;
use crate::serve::{Side, serve};
use crate::servers::{self, Servers};
use crate::vault::Vault;
use perfwatch_alert::deliver::Notifier;
use perfwatch_model::remote::RemoteCollector;
use perfwatch_model::{Catalog, Clock, limits};
use perfwatch_store::people::{AuditEntry, Role};
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
pub struct Deps {
    /// What it remembers.
    pub store: Arc<dyn Store>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The metrics its agents may know.
    pub catalog: Arc<Catalog>,
    /// Who brings messages out.
    pub notifier: Arc<dyn Notifier>,
    /// Who looks at hosts without an agent.
    pub remote: Arc<dyn RemoteCollector>,
}

/// Why a hub can't start.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A setting that can't be.
    #[error(transparent)]
    Config(#[from] HubProblem),
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
    inside: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: TaskTracker,
    people: Arc<People>,
    tls: bool,
    server: JoinHandle<std::io::Result<()>>,
}

/// How long clients get to take their last words.
const DRAIN: Duration = Duration::from_secs(5);
/// How often what is older than the live window is let go.
const PRUNE_EVERY: Duration = Duration::from_secs(15);

impl Hub {
    /// Binds and serves.
    ///
    /// # Errors
    /// A setting that can't be, an address that is taken, a store that does not answer.
    pub async fn start(config: HubConfig, deps: Deps) -> Result<Self, HubError> {
        config.check()?;
        let listen = config.listen;
        let bind = |error| HubError::Bind { address: listen, error };
        let listener = TcpListener::bind(listen).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let vault = Arc::new(Vault::new(&config.secret_keys.0));
        let people =
            People::open(deps.store.clone(), deps.clock.clone(), vault.clone(), config.sessions).await?;
        if let Some(admin) = &config.first_admin {
            make_admin(&people, admin).await?;
        }
        let app = open(config, deps, (people.clone(), vault), (address, stop.clone(), tasks.clone())).await?;
        app.history.start(&tasks, &stop);
        app.alerting.start(&tasks, &stop);
        app.servers.start(&tasks, &stop);
        tasks.spawn(prune(app.clone()));
        tasks.spawn(people.clone().keep(stop.clone()));
        let tls = app.config.tls.is_some();
        if !tls && !address.ip().is_loopback() && app.config.trusted_proxies.is_empty() {
            tracing::warn!(%address, "without TLS, passwords and data travel in the clear: set hub.tls, or put a proxy before the hub");
        }
        let config = app.config.clone();
        let router = router(app);
        let inside = match tls && config.own_agent {
            true => Some(open_inside(router.clone(), &config, &stop, &tasks)?),
            false => None,
        };
        let served = serve(listener, Side::Outside, router, &config, &stop, DRAIN).map_err(HubError::Tls)?;
        let server = tokio::spawn(served);
        tracing::info!(%address, tls, "hub listens");
        Ok(Self { address, inside, stop, tasks, people, tls, server })
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
    pub fn inside_url(&self) -> String {
        self.inside.map_or_else(|| self.url(), |address| format!("http://{address}"))
    }

    /// The secret of the agent in this process: made anew at each start, never written down.
    pub fn own_agent(&self) -> String {
        self.people.own_agent.clone()
    }

    /// Path of the page that makes the first administrator, while there is none. The secret stands
    /// behind `#`: browsers keep that to themselves, so no log on the way has it.
    pub fn set_up_path(&self) -> Option<String> {
        self.people.set_up_secret().map(|secret| format!("/setup#{secret}"))
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
        match tokio::time::timeout(DRAIN, drained).await {
            Ok(Ok(Ok(()))) => tracing::info!("hub stopped"),
            Ok(Ok(Err(error))) => tracing::warn!(%error, "hub stopped"),
            Ok(Err(error)) => tracing::error!(%error, "hub stopped"),
            Err(_) => tracing::warn!("hub stopped without waiting for the last clients"),
        }
    }
}

/// Reads what the store has into all rooms.
async fn open(
    config: HubConfig,
    deps: Deps,
    (people, vault): (Arc<People>, Arc<Vault>),
    (address, stop, tasks): (SocketAddr, CancellationToken, TaskTracker),
) -> Result<Arc<App>, HubError> {
    let Deps { store, clock, catalog, notifier, remote } = deps;
    let metrics = Arc::new(SelfMetrics::new());
    let live = Arc::new(Live::new());
    let cache = open_cache(&config, &*store, clock.clone(), &metrics).await?;
    let fleet = Arc::new(Fleet::open(store.clone()).await?);
    let history =
        History::open(store.clone(), clock.clone(), config.history.clone(), metrics.history.clone()).await?;
    restore(&history, &fleet, &live, clock.wall_ms()).await?;
    let rooms = Rooms {
        store: store.clone(),
        clock: clock.clone(),
        catalog: catalog.clone(),
        people: people.clone(),
        fleet: fleet.clone(),
        live: live.clone(),
        history: history.clone(),
        notifier,
        vault: vault.clone(),
        url: link_base(&config, address),
    };
    let alerting = Alerting::open(rooms, metrics.alerts.clone()).await?;
    let pipeline = Arc::new(Pipeline::new(Parts {
        history: history.clone(),
        fleet: fleet.clone(),
        live: live.clone(),
        alerting: alerting.clone(),
        catalog: catalog.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        interval: config.interval,
    }));
    let rooms = servers::Rooms {
        store,
        clock: clock.clone(),
        fleet: fleet.clone(),
        live: live.clone(),
        alerting: alerting.clone(),
        pipeline: pipeline.clone(),
        remote,
        vault,
        cache: cache.clone(),
    };
    let servers = Servers::new(rooms, metrics.servers.clone(), config.workers);
    servers.reseal().await?;
    servers.keep_up().await?;
    Ok(Arc::new(App {
        started: clock.monotonic(),
        people,
        throttle: Throttle::default(),
        limits: Limits::new(config.requests),
        oidc: config.oidc.clone().map(|oidc| Arc::new(Oidc::new(oidc))),
        config,
        clock,
        catalog,
        fleet,
        pipeline,
        history,
        live,
        cache,
        alerting,
        servers,
        metrics,
        decompressing: Semaphore::new(limits::DECOMPRESSING),
        decoded: Arc::new(Semaphore::new(limits::DECODED_BYTES >> 10)),
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
    let site = settings::site(store).await?;
    Ok(Arc::new(Cache::open(redis, &site, clock, metrics.cache.clone())?))
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
fn link_base(config: &HubConfig, address: SocketAddr) -> String {
    let own = || local_url(address, config.tls.is_some());
    config.public_url.as_deref().map_or_else(own, |url| url.trim_end_matches('/').to_owned())
}

/// A door for the agent of this process, where everyone else's asks for TLS.
fn open_inside(
    router: axum::Router,
    config: &HubConfig,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<SocketAddr, HubError> {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bind = |error| HubError::Bind { address: loopback, error };
    let listener = TcpListener::bind(loopback).map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    tasks.spawn(serve(listener, Side::Inside, router, config, stop, DRAIN).map_err(HubError::Tls)?);
    Ok(address)
}

/// The administrator that the configuration names, where there is no account yet.
async fn make_admin(people: &Arc<People>, admin: &FirstAdmin) -> Result<(), HubError> {
    if people.now().has_admin(None) {
        return Ok(());
    }
    let problem = |message: String| HubProblem { key: "admin", message };
    let account = people.new_account(&admin.name, Role::Admin, admin.password.clone()).await;
    let account = account.map_err(|error| problem(error.message().to_owned()))?;
    let entry = AuditEntry {
        actor: "configuration".to_owned(),
        action: "user.create".to_owned(),
        object: format!("user {}", account.name),
        ..AuditEntry::default()
    };
    match people.turn().await?.commit([account.add()], Some(entry)).await {
        Ok(()) => Ok(()),
        // Another hub of the same configuration was first.
        Err(CommitError::Conflict) if people.now().has_admin(None) => Ok(()),
        Err(CommitError::Conflict) => {
            Err(problem(format!("there is another user called {:?}", account.name)).into())
        }
        Err(CommitError::Store(error)) => Err(error.into()),
    }
}

/// The last minutes of each host stand in the live window again, whether they are in blocks
/// or not.
async fn restore(history: &History, fleet: &Fleet, live: &Live, now_ms: i64) -> Result<(), StoreError> {
    let since_ms = now_ms - limits::LIVE_WINDOW_MS;
    for host in fleet.all() {
        let rows = history.recent(host.record.id, host.record.last_at_ms, since_ms).await?;
        let name: Arc<str> = host.record.name.into();
        for row in rows {
            live.restore(host.record.id, &name, row, now_ms);
        }
    }
    Ok(())
}

async fn prune(app: Arc<App>) {
    let mut ticks = tokio::time::interval(PRUNE_EVERY);
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            _ = ticks.tick() => {
                app.live.prune(app.clock.wall_ms());
                app.pipeline.prune();
                app.limits.prune();
                app.cache.prune();
            }
        }
    }
}

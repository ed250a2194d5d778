//! Creates the services of a hub, and loads their state from the store.

use crate::app::App;
use crate::config::{HubConfig, HubConfigError};
use perfwatch_accounts::Accounts;
use perfwatch_agentless::{Agentless, AgentlessDeps};
use perfwatch_alerting::{Alerting, AlertingDeps};
use perfwatch_auth::AuthDirectory;
use perfwatch_auth::encryption::Keyring;
use perfwatch_auth::login::LoginService;
use perfwatch_auth::oidc::OidcProvider;
use perfwatch_capsule::{CapsuleBuilder, CapsuleDeps};
use perfwatch_history::History;
use perfwatch_http::ingest_memory::IngestMemory;
use perfwatch_http::public_address::PublicAddress;
use perfwatch_http::rate_limit::RateLimiters;
use perfwatch_http::shared_compression::SharedCompression;
use perfwatch_ingest::{Pipeline, PipelineDeps};
use perfwatch_live::LiveFeed;
use perfwatch_live::cache::Cache;
use perfwatch_live::host_registry::HostRegistry;
use perfwatch_live::live_stream::{LiveStream, RedisUrlError};
use perfwatch_metrics::SelfMetrics;
use perfwatch_model::remote_collector::RemoteCollector;
use perfwatch_model::{Catalog, Clock, limits};
use perfwatch_overview::{Overview, OverviewDeps};
use perfwatch_query::views::SavedViews;
use perfwatch_query::{QueryDeps, QueryEngine};
use perfwatch_rules::notification::Notifier;
use perfwatch_settings::{SettingTargets, SettingValues, Settings};
use perfwatch_status::{StatusDeps, StatusPages};
use perfwatch_store::{Store, StoreError, settings};
use perfwatch_workers::WorkerPool;
use secrecy::ExposeSecret;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Adapters behind the hub's ports.
pub struct HubDependencies {
    /// Database of history, definitions and accounts.
    pub store: Arc<dyn Store>,
    /// Source of wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Definitions of all metrics.
    pub catalog: Arc<Catalog>,
    /// Delivery of notifications to channels.
    pub notifier: Arc<dyn Notifier>,
    /// SSH collection of agentless hosts.
    pub remote_collector: Arc<dyn RemoteCollector>,
    /// Threads for untrusted computation.
    pub workers: Arc<WorkerPool>,
}

/// Error at the start of a hub.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Setting with an invalid value.
    #[error(transparent)]
    Config(#[from] HubConfigError),
    /// Listen address that is in use or not local.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// Configured listen address.
        address: SocketAddr,
        /// Error of the operating system.
        error: std::io::Error,
    },
    /// TLS certificate or key that cannot be loaded.
    #[error("hub.tls: {0}")]
    Tls(std::io::Error),
    /// Database that cannot be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Creates the services and loads their state from the store.
pub(crate) async fn build_app(
    config: HubConfig,
    deps: HubDependencies,
    (directory, keyring): (Arc<AuthDirectory>, Arc<Keyring>),
    (public_address, stop, tasks): (Arc<PublicAddress>, CancellationToken, TaskTracker),
) -> Result<(Arc<App>, Arc<Cache>, Option<LiveStream>), HubError> {
    let HubDependencies { store, clock, catalog, notifier, remote_collector, workers } = deps;
    let metrics = Arc::new(SelfMetrics::new(workers.metrics().clone(), clock.clone()));
    let (cache, stream) = open_redis(&config, &*store, clock.clone(), &metrics).await?;
    let (live_feed, hosts) = (Arc::new(LiveFeed::new()), Arc::new(HostRegistry::open(store.clone()).await?));
    let history = open_history(&store, &clock, (&config, &metrics), &hosts, &live_feed).await?;
    let (settings, rate_limiters) = open_settings(&config, (&store, &clock), &history, &directory).await?;
    let accounts = open_accounts(&config, (&clock, &directory), &public_address).await?;
    let alerting_deps = AlertingDeps {
        store: store.clone(),
        clock: clock.clone(),
        catalog: catalog.clone(),
        directory: directory.clone(),
        hosts: hosts.clone(),
        live_feed: live_feed.clone(),
        history: history.clone(),
        notifier,
        workers: workers.clone(),
        keyring: keyring.clone(),
        base_url: public_address.notification_base_url.clone(),
    };
    let (alerting, overview) = open_alerting(alerting_deps.clone(), &metrics).await?;
    let (queries, capsules) = (query_deps(&alerting_deps), capsule_builder(&alerting_deps, &alerting));
    let pipeline = open_pipeline(alerting_deps, &alerting, (&metrics, &settings));
    let status = open_status(&queries, (&alerting, &overview), &metrics);
    let deps = AgentlessDeps {
        store,
        clock: clock.clone(),
        hosts: hosts.clone(),
        live_feed: live_feed.clone(),
        alerting: alerting.clone(),
        sink: pipeline.clone(),
        collector: remote_collector,
        keyring,
        workers,
        cache: cache.clone(),
    };
    let app = App {
        agentless: open_agentless(deps, &metrics, config.collection_workers).await?,
        started: clock.monotonic(),
        accounts,
        directory,
        rate_limiters,
        settings,
        config,
        clock,
        catalog,
        hosts,
        pipeline,
        history,
        live_feed,
        alerting,
        overview,
        shared_compression: SharedCompression::default(),
        status,
        views: SavedViews::new(&queries),
        queries: QueryEngine::new(queries),
        capsules,
        metrics,
        ingest_memory: IngestMemory::default(),
        draining: CancellationToken::new(),
        stop,
        tasks,
    };
    Ok((Arc::new(app), cache, stream))
}

/// Loads the state of logins.
async fn open_accounts(
    config: &HubConfig,
    (clock, directory): (&Arc<dyn Clock>, &Arc<AuthDirectory>),
    public_address: &Arc<PublicAddress>,
) -> Result<Accounts, HubError> {
    let oidc = config.oidc.clone().map(|oidc| Arc::new(OidcProvider::new(oidc, config.outbound.clone())));
    Ok(Accounts {
        clock: clock.clone(),
        directory: directory.clone(),
        login: Arc::new(LoginService::open(directory.clone(), clock.clone()).await?),
        oidc,
        public_address: public_address.clone(),
    })
}

/// Builder of capsules, which contain history and incidents.
fn capsule_builder(deps: &AlertingDeps, alerting: &Arc<Alerting>) -> CapsuleBuilder {
    let AlertingDeps { clock, catalog, directory, hosts, history, .. } = deps.clone();
    CapsuleBuilder::new(CapsuleDeps { clock, catalog, directory, hosts, history, alerting: alerting.clone() })
}

/// Loads rules and incidents; the overview reads the same services.
async fn open_alerting(
    deps: AlertingDeps,
    metrics: &SelfMetrics,
) -> Result<(Arc<Alerting>, Overview), StoreError> {
    let alerting = Alerting::open(deps.clone(), metrics.alerts.clone()).await?;
    let overview = Overview::new(OverviewDeps {
        clock: deps.clock,
        directory: deps.directory,
        hosts: deps.hosts,
        live_feed: deps.live_feed,
        history: deps.history,
        alerting: alerting.clone(),
    });
    Ok((alerting, overview))
}

/// Services that queries read.
fn query_deps(deps: &AlertingDeps) -> QueryDeps {
    let AlertingDeps { store, clock, catalog, directory, hosts, history, .. } = deps.clone();
    QueryDeps { store, clock, catalog, directory, hosts, history }
}

/// Creates the public status pages, which read the same services as queries.
fn open_status(
    deps: &QueryDeps,
    (alerting, overview): (&Arc<Alerting>, &Overview),
    metrics: &SelfMetrics,
) -> StatusPages {
    let QueryDeps { store, clock, directory, hosts, history, .. } = deps.clone();
    let (alerting, overview, tasks) = (alerting.clone(), overview.clone(), metrics.tasks.clone());
    StatusPages::new(StatusDeps { store, clock, directory, hosts, history, alerting, overview, tasks })
}

/// Creates the pipeline of accepted snapshots, which the same services read.
fn open_pipeline(
    deps: AlertingDeps,
    alerting: &Arc<Alerting>,
    (metrics, settings): (&Arc<SelfMetrics>, &Settings),
) -> Arc<Pipeline> {
    Arc::new(Pipeline::new(PipelineDeps {
        history: deps.history,
        hosts: deps.hosts,
        directory: deps.directory,
        live_feed: deps.live_feed,
        alerting: alerting.clone(),
        catalog: deps.catalog,
        clock: deps.clock,
        metrics: metrics.clone(),
        settings: settings.clone(),
    }))
}

/// Loads the servers and brings their secrets and jobs up to date.
async fn open_agentless(
    deps: AgentlessDeps,
    metrics: &SelfMetrics,
    collection_workers: usize,
) -> Result<Arc<Agentless>, StoreError> {
    let agentless = Agentless::new(deps, metrics.servers.clone(), collection_workers);
    agentless.reencrypt().await?;
    agentless.reconcile().await?;
    Ok(agentless)
}

/// Loads the stored settings and applies them to the services.
async fn open_settings(
    config: &HubConfig,
    (store, clock): (&Arc<dyn Store>, &Arc<dyn Clock>),
    history: &Arc<History>,
    directory: &Arc<AuthDirectory>,
) -> Result<(Settings, RateLimiters), StoreError> {
    let rate_limiters = RateLimiters::new(config.rate_limits);
    let base =
        SettingValues::new(&config.history, config.session_lifetimes, config.rate_limits, config.interval);
    let (history, directory) = (history.clone(), directory.clone());
    let targets = SettingTargets { history, directory, rate_limiters: rate_limiters.clone() };
    let base = (base, config.configured.clone());
    Ok((Settings::open((store.clone(), clock.clone()), base, targets).await?, rate_limiters))
}

/// Opens the cache and the stream of live data, shared through Redis by all hubs of this store.
async fn open_redis(
    config: &HubConfig,
    store: &dyn Store,
    clock: Arc<dyn Clock>,
    metrics: &SelfMetrics,
) -> Result<(Arc<Cache>, Option<LiveStream>), HubError> {
    let redis = config.redis.as_ref().map(ExposeSecret::expose_secret);
    let installation = settings::installation_id(store).await?;
    let invalid = |error: RedisUrlError| HubConfigError { key: "redis", message: error.to_string() };
    let stream = redis.map(|url| LiveStream::open(url, &installation)).transpose().map_err(invalid)?;
    let cache = Cache::open(redis, &installation, clock, metrics.cache.clone()).map_err(invalid)?;
    Ok((Arc::new(cache), stream))
}

/// Opens the history and fills the recent windows from it.
async fn open_history(
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    (config, metrics): (&HubConfig, &SelfMetrics),
    hosts: &HostRegistry,
    live_feed: &LiveFeed,
) -> Result<Arc<History>, StoreError> {
    let (config, metrics) = (config.history.clone(), metrics.history.clone());
    let history = History::open(store.clone(), clock.clone(), config, metrics).await?;
    let now_ms = clock.wall_ms();
    let since_ms = now_ms - limits::RECENT_WINDOW_MS;
    for host in hosts.list() {
        let rows = history.recent(host.record.id, host.record.last_snapshot_ms, since_ms).await?;
        let name: Arc<str> = host.record.name.as_str().into();
        for row in rows {
            live_feed.restore(&host.record, &name, row, now_ms);
        }
    }
    Ok(history)
}

//! State shared by all handlers: services and limits of one hub.

use crate::config::HubConfig;
use axum::extract::FromRef;
use perfwatch_accounts::Accounts;
use perfwatch_agentless::Agentless;
use perfwatch_alerting::Alerting;
use perfwatch_auth::AuthDirectory;
use perfwatch_capsule::CapsuleBuilder;
use perfwatch_history::History;
use perfwatch_http::ingest_memory::IngestMemory;
use perfwatch_http::public_address::PublicAddress;
use perfwatch_http::rate_limit::RateLimiters;
use perfwatch_http::shared_compression::SharedCompression;
use perfwatch_ingest::Pipeline;
use perfwatch_live::LiveFeed;
use perfwatch_live::host_registry::HostRegistry;
use perfwatch_metrics::SelfMetrics;
use perfwatch_model::{Catalog, Clock};
use perfwatch_overview::Overview;
use perfwatch_query::QueryEngine;
use perfwatch_query::views::SavedViews;
use perfwatch_settings::Settings;
use perfwatch_status::StatusPages;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Services of one hub.
pub(crate) struct App {
    pub(crate) config: HubConfig,
    /// Source of wall and monotonic time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Monotonic time at the start of the hub.
    pub(crate) started: Duration,
    /// Definitions of all metrics.
    pub(crate) catalog: Arc<Catalog>,
    /// Accounts, sessions, tokens and agents.
    pub(crate) directory: Arc<AuthDirectory>,
    /// Routes of accounts, and password logins with their throttle.
    pub(crate) accounts: Accounts,
    /// Rate limits of agents, callers and addresses.
    pub(crate) rate_limiters: RateLimiters,
    /// Settings that administrators change while the hub runs.
    pub(crate) settings: Settings,
    /// Known hosts with their state.
    pub(crate) hosts: Arc<HostRegistry>,
    /// Ingestion of snapshots from all sources.
    pub(crate) pipeline: Arc<Pipeline>,
    /// Stored history of all hosts.
    pub(crate) history: Arc<History>,
    /// Recent windows and the stream of accepted snapshots.
    pub(crate) live_feed: Arc<LiveFeed>,
    /// Rules, incidents and notifications.
    pub(crate) alerting: Arc<Alerting>,
    /// Overview of all hosts, shared by its viewers.
    pub(crate) overview: Overview,
    /// Compressed copies of responses that callers share.
    pub(crate) shared_compression: SharedCompression,
    /// Queries over the series of many hosts.
    pub(crate) queries: QueryEngine,
    /// Saved views of queries.
    pub(crate) views: SavedViews,
    /// Public status pages.
    pub(crate) status: StatusPages,
    /// Builder of incident capsules.
    pub(crate) capsules: CapsuleBuilder,
    /// Collection of agentless hosts.
    pub(crate) agentless: Arc<Agentless>,
    /// Self-metrics of the hub.
    pub(crate) metrics: Arc<SelfMetrics>,
    /// Memory limits of ingest requests.
    pub(crate) ingest_memory: IngestMemory,
    /// Cancelled before the hub shuts down: it still serves, and clients move to other hubs.
    pub(crate) draining: CancellationToken,
    /// Cancelled when the hub shuts down.
    pub(crate) stop: CancellationToken,
    /// WebSocket tasks, which outlive their HTTP request; shutdown waits for them.
    pub(crate) tasks: TaskTracker,
}

impl App {
    /// Addresses of the hub, and conditions of requests that are logged once.
    pub(crate) fn public_address(&self) -> &PublicAddress {
        &self.accounts.public_address
    }
}

/// State of the router. Routes of other crates extract the service that they use.
#[derive(Clone)]
pub(crate) struct AppState(pub(crate) Arc<App>);

impl FromRef<AppState> for Arc<App> {
    fn from_ref(state: &AppState) -> Self {
        state.0.clone()
    }
}

impl FromRef<AppState> for Accounts {
    fn from_ref(state: &AppState) -> Self {
        state.0.accounts.clone()
    }
}

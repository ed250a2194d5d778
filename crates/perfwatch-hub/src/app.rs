//! The handles every request shares.

use crate::config::HubConfig;
use crate::ingest::Pipeline;
use crate::middleware::rate_limit::RateLimiters;
use crate::self_metrics::SelfMetrics;
use perfwatch_agentless::Agentless;
use perfwatch_alerting::Alerting;
use perfwatch_auth::AuthDirectory;
use perfwatch_auth::login::LoginService;
use perfwatch_auth::oidc::OidcProvider;
use perfwatch_history::History;
use perfwatch_live::LiveFeed;
use perfwatch_live::cache::Cache;
use perfwatch_live::host_registry::HostRegistry;
use perfwatch_model::{Catalog, Clock};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One hub.
pub(crate) struct App {
    /// As it was started.
    pub(crate) config: HubConfig,
    /// What time it is.
    pub(crate) clock: Arc<dyn Clock>,
    /// Monotonic time of the start.
    pub(crate) started: Duration,
    /// All metrics this build knows.
    pub(crate) catalog: Arc<Catalog>,
    /// Who may enter.
    pub(crate) directory: Arc<AuthDirectory>,
    /// Wrong tries to enter.
    pub(crate) login: LoginService,
    /// How often one may come.
    pub(crate) rate_limiters: RateLimiters,
    /// Single sign-on.
    pub(crate) oidc: Option<Arc<OidcProvider>>,
    /// The hosts we know.
    pub(crate) hosts: Arc<HostRegistry>,
    /// The one way in.
    pub(crate) pipeline: Arc<Pipeline>,
    /// What was, durably.
    pub(crate) history: Arc<History>,
    /// The last minutes, and who watches them.
    pub(crate) live_feed: Arc<LiveFeed>,
    /// What is known for a while.
    pub(crate) cache: Arc<Cache>,
    /// What people are told of.
    pub(crate) alerting: Arc<Alerting>,
    /// Hosts without an agent.
    pub(crate) agentless: Arc<Agentless>,
    /// The hub about itself.
    pub(crate) metrics: Arc<SelfMetrics>,
    /// Bounds how many requests are decompressed at one time.
    pub(crate) decompression_permits: Semaphore,
    /// Bounds what requests hold together from there on, in KiB.
    pub(crate) decoded_bytes_permits: Arc<Semaphore>,
    /// Cancelled when the hub is to leave.
    pub(crate) stop: CancellationToken,
    /// WebSocket tasks, which outlive their HTTP request.
    pub(crate) tasks: TaskTracker,
}

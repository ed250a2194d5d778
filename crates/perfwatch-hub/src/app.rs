//! The handles every request shares.

use crate::alerting::Alerting;
use crate::auth::oidc::Oidc;
use crate::auth::throttle::Throttle;
use crate::auth::{Limits, People};
use crate::cache::Cache;
use crate::config::HubConfig;
use crate::fleet::Fleet;
use crate::history::History;
use crate::ingest::Pipeline;
use crate::live::Live;
use crate::self_metrics::SelfMetrics;
use crate::servers::Servers;
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
    pub(crate) people: Arc<People>,
    /// Wrong tries to enter.
    pub(crate) throttle: Throttle,
    /// How often one may come.
    pub(crate) limits: Limits,
    /// Single sign-on.
    pub(crate) oidc: Option<Arc<Oidc>>,
    /// The hosts we know.
    pub(crate) fleet: Arc<Fleet>,
    /// The one way in.
    pub(crate) pipeline: Arc<Pipeline>,
    /// What was, durably.
    pub(crate) history: Arc<History>,
    /// The last minutes, and who watches them.
    pub(crate) live: Arc<Live>,
    /// What is known for a while.
    pub(crate) cache: Arc<Cache>,
    /// What people are told of.
    pub(crate) alerting: Arc<Alerting>,
    /// Hosts without an agent.
    pub(crate) servers: Arc<Servers>,
    /// The hub about itself.
    pub(crate) metrics: Arc<SelfMetrics>,
    /// Bounds how many requests are decompressed at one time.
    pub(crate) decompressing: Semaphore,
    /// Bounds what requests hold together from there on, in KiB.
    pub(crate) decoded: Arc<Semaphore>,
    /// Cancelled when the hub is to leave.
    pub(crate) stop: CancellationToken,
    /// WebSocket tasks, which outlive their HTTP request.
    pub(crate) tasks: TaskTracker,
}

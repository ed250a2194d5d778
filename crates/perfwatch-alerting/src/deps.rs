//! Dependencies of alerting on the other parts of the hub.

use perfwatch_auth::AuthDirectory;
use perfwatch_auth::encryption::Keyring;
use perfwatch_history::History;
use perfwatch_live::LiveFeed;
use perfwatch_live::host_registry::HostRegistry;
use perfwatch_model::{Catalog, Clock};
use perfwatch_rules::notification::Notifier;
use perfwatch_store::Store;
use perfwatch_workers::WorkerPool;
use std::sync::Arc;

/// Components that [`crate::Alerting::open`] distributes among its services.
#[derive(Clone)]
pub struct AlertingDeps {
    /// Store of definitions, incidents and notifications.
    pub store: Arc<dyn Store>,
    /// Clock of the hub.
    pub clock: Arc<dyn Clock>,
    /// Units of the metrics, for alert texts.
    pub catalog: Arc<Catalog>,
    /// Tags of the hosts.
    pub directory: Arc<AuthDirectory>,
    /// Names, intervals and last-seen times of the hosts.
    pub hosts: Arc<HostRegistry>,
    /// Recent window, the source of short replays and of explanations.
    pub live_feed: Arc<LiveFeed>,
    /// Stored snapshots, the source of long replays and of backtests.
    pub history: Arc<History>,
    /// Port that delivers notifications.
    pub notifier: Arc<dyn Notifier>,
    /// Pool that renders templates.
    pub workers: Arc<WorkerPool>,
    /// Keys that encrypt the settings of channels.
    pub keyring: Arc<Keyring>,
    /// Base URL of links in notifications: `hub.public_url` if it is set.
    pub base_url: String,
}

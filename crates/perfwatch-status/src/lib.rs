//! Public status pages: chosen hosts and values behind a link that expires. A visitor needs no session and reaches
//! nothing else with it.
//!
//! [`StatusPages`] manages the pages, a background task follows the availability of their hosts, and [`public`]
//! answers visitors from memory.

mod announcement;
mod answer;
mod availability;
mod content;
mod days;
mod host_days;
mod observe;
pub mod public;
mod recent_values;
pub mod response;
mod service;

use answer::PageCache;
use host_days::HostDays;
use perfwatch_alerting::Alerting;
use perfwatch_auth::AuthDirectory;
use perfwatch_history::History;
use perfwatch_live::host_registry::HostRegistry;
use perfwatch_model::task_runs::TaskRuns;
use perfwatch_model::{Clock, HostId};
use perfwatch_overview::Overview;
use perfwatch_store::Store;
use recent_values::RecentValues;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use tokio::sync::Notify;
use uuid::Uuid;

/// Services that status pages read.
#[derive(Clone)]
pub struct StatusDeps {
    /// Database of pages and availability.
    pub store: Arc<dyn Store>,
    /// Source of wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Pages, accounts and tags of hosts.
    pub directory: Arc<AuthDirectory>,
    /// Known hosts with their state.
    pub hosts: Arc<HostRegistry>,
    /// Stored history, from which the availability is computed.
    pub history: Arc<History>,
    /// Open incidents and silences.
    pub alerting: Arc<Alerting>,
    /// Newest values of hosts.
    pub overview: Overview,
    /// Last runs of background tasks.
    pub tasks: TaskRuns,
}

/// Public status pages. Clones share everything.
#[derive(Clone)]
pub struct StatusPages(Arc<StatusService>);

/// Shared state of the pages, the task and the answers.
struct StatusService {
    deps: StatusDeps,
    /// Monotonic time at the start of the hub.
    started: Duration,
    /// Availability of the hosts of all pages.
    days: RwLock<HashMap<HostId, HostDays>>,
    /// Values of the last hour of these hosts.
    recent: RwLock<HashMap<HostId, RecentValues>>,
    /// Notified when the hosts of the pages changed.
    changed: Notify,
    /// Answers by page.
    answers: Mutex<HashMap<Uuid, PageCache>>,
}

impl StatusPages {
    /// Creates the pages without any availability in memory.
    pub fn new(deps: StatusDeps) -> Self {
        let started = deps.clock.monotonic();
        Self(Arc::new(StatusService {
            deps,
            started,
            days: RwLock::default(),
            recent: RwLock::default(),
            changed: Notify::new(),
            answers: Mutex::default(),
        }))
    }
}

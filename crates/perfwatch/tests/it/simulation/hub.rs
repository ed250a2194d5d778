//! Services of a hub without its listener, in a runtime of their own. Dropping the runtime ends all tasks
//! where they wait, as a kill does.

use super::hosts::FakeHost;
use super::receivers::{Receivers, channels, rules};
use super::store::{Faults, FaultyStore};
use perfwatch_alerting::{AlertDefinitions, Alerting, AlertingDeps, AlertingSnapshot, StateChange, to_json};
use perfwatch_auth::encryption::Keyring;
use perfwatch_auth::{AuthDirectory, SessionLifetimes};
use perfwatch_history::{History, HistoryConfig};
use perfwatch_http::rate_limit::{RateLimitConfig, RateLimiters};
use perfwatch_ingest::{Pipeline, PipelineDeps, ReceivedSnapshot, SnapshotClock, Submission, SubmitError};
use perfwatch_live::LiveFeed;
use perfwatch_live::host_registry::{HostRegistry, HostSender};
use perfwatch_metrics::SelfMetrics;
use perfwatch_model::wire::{self, IngestResponse};
use perfwatch_model::{Catalog, Clock, ManualClock, Snapshot, SystemClock, limits};
use perfwatch_settings::{ConfiguredSettings, SettingTargets, SettingValues, Settings};
use perfwatch_store::definitions::DefinitionKind;
use perfwatch_store::{CommitError, SqliteOptions, SqliteStore, Store, Transaction};
use perfwatch_workers::{PoolConfig, WorkerPool};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What outlives a restart of the hub.
pub(super) struct Site {
    folder: tempfile::TempDir,
    pub(super) clock: Arc<ManualClock>,
    pub(super) faults: Arc<Faults>,
    pub(super) receivers: Arc<Receivers>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) workers: Arc<WorkerPool>,
    pub(super) config: HistoryConfig,
}

impl Site {
    pub(super) fn new(start_ms: i64, config: HistoryConfig) -> Self {
        let faults: Arc<Faults> = Arc::default();
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: Arc::new(ManualClock::starting_at(start_ms)),
            receivers: Arc::new(Receivers::new(faults.clone())),
            faults,
            catalog: Arc::new(perfwatch_collect::catalog(perfwatch_agent::METRICS)),
            workers: Arc::new(WorkerPool::new(Arc::new(SystemClock::new()), PoolConfig::default())),
            config,
        }
    }

    fn open_store(&self) -> Arc<dyn Store> {
        let options =
            SqliteOptions { folder: self.folder.path().to_owned(), budget_bytes: self.config.budget_bytes };
        let store = Arc::new(SqliteStore::open(&options, self.clock.clone()).unwrap());
        Arc::new(FaultyStore { store, faults: self.faults.clone() })
    }
}

/// Running hub.
pub(super) struct SimulatedHub {
    // Dropped in this order: the last task ends before the store is closed.
    runtime: Runtime,
    pub(super) history: Arc<History>,
    pub(super) alerting: Arc<Alerting>,
    pub(super) store: Arc<dyn Store>,
    pipeline: Arc<Pipeline>,
    clock: Arc<ManualClock>,
    faults: Arc<Faults>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Services that the hub is made of.
struct Services {
    history: Arc<History>,
    alerting: Arc<Alerting>,
    store: Arc<dyn Store>,
    pipeline: Arc<Pipeline>,
}

/// Opens the services in the order of the hub.
async fn open_services(site: &Site) -> Services {
    let store = site.open_store();
    let clock: Arc<dyn Clock> = site.clock.clone();
    let metrics = Arc::new(SelfMetrics::new(site.workers.metrics().clone(), clock.clone()));
    let keyring = Arc::new(Keyring::new(&[[7; 32]]));
    let lifetimes = SessionLifetimes::default();
    let directory = AuthDirectory::open(store.clone(), clock.clone(), keyring.clone(), lifetimes);
    let directory = directory.await.unwrap();
    let live_feed = Arc::new(LiveFeed::new());
    let hosts = Arc::new(HostRegistry::open(store.clone()).await.unwrap());
    let config = site.config.clone();
    let history = History::open(store.clone(), clock.clone(), config, metrics.history.clone());
    let history = history.await.unwrap();
    restore_recent_window(&history, &hosts, &live_feed, clock.wall_ms()).await;
    let rates = RateLimitConfig::default();
    let base = (SettingValues::new(&site.config, lifetimes, rates, None), ConfiguredSettings::default());
    let targets = SettingTargets {
        history: history.clone(),
        directory: directory.clone(),
        rate_limiters: RateLimiters::new(rates),
    };
    let settings = Settings::open((store.clone(), clock.clone()), base, targets).await.unwrap();
    let deps = AlertingDeps {
        store: store.clone(),
        clock: clock.clone(),
        catalog: site.catalog.clone(),
        directory: directory.clone(),
        hosts: hosts.clone(),
        live_feed: live_feed.clone(),
        history: history.clone(),
        notifier: site.receivers.clone(),
        workers: site.workers.clone(),
        keyring,
        base_url: "http://hub".to_owned(),
    };
    let alerting = Alerting::open(deps, metrics.alerts.clone()).await.unwrap();
    let pipeline = Pipeline::new(PipelineDeps {
        history: history.clone(),
        hosts,
        directory,
        live_feed,
        alerting: alerting.clone(),
        catalog: site.catalog.clone(),
        clock,
        metrics,
        settings,
    });
    Services { history, alerting, store, pipeline: Arc::new(pipeline) }
}

/// Fills the recent window from the history, as the hub does before its tasks start.
async fn restore_recent_window(history: &History, hosts: &HostRegistry, live_feed: &LiveFeed, now_ms: i64) {
    for host in hosts.list() {
        let record = &host.record;
        let since_ms = now_ms - limits::RECENT_WINDOW_MS;
        for row in history.recent(record.id, record.last_snapshot_ms, since_ms).await.unwrap() {
            live_feed.restore(record, &record.name.as_str().into(), row, now_ms);
        }
    }
}

/// Replaces the built-in rules by those of the simulation, and adds its channels.
async fn set_definitions(alerting: &Alerting) {
    let build_change = |state: &AlertingSnapshot, _: i64| {
        let old = &state.definitions;
        let (rules, channels) = (rules(), channels());
        let mut tx = Transaction::default();
        let mut stored_rules = tx.definitions(DefinitionKind::Rule);
        old.rules.iter().for_each(|rule| stored_rules.delete(rule.id));
        rules.iter().for_each(|rule| stored_rules.upsert(rule.id, &to_json(&**rule)));
        let mut stored_channels = tx.definitions(DefinitionKind::Channel);
        channels.iter().for_each(|channel| stored_channels.upsert(channel.id, &to_json(&**channel)));
        let definitions =
            AlertDefinitions { rules, channels, silences: Vec::new(), mail_server: old.mail_server.clone() };
        Ok::<_, CommitError>((StateChange { definitions: Some(definitions), incidents: None, tx }, ()))
    };
    alerting.update(None, build_change).await.unwrap();
}

impl SimulatedHub {
    /// Opens the services and starts their tasks. `None` if the hub was killed before.
    pub(super) fn start(site: &Site, is_first: bool) -> Option<Self> {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let opened = runtime.block_on(async {
            tokio::select! {
                biased;
                () = site.faults.wait_for_crash() => None,
                services = open_services(site) => Some(services),
            }
        });
        let Services { history, alerting, store, pipeline } = opened?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (clock, faults) = (site.clock.clone(), site.faults.clone());
        let hub = Self { runtime, history, alerting, store, pipeline, clock, faults, stop, tasks };
        hub.drive(async {
            if is_first {
                set_definitions(&hub.alerting).await;
            }
            hub.history.start(&hub.tasks, &hub.stop);
            hub.alerting.start(&hub.tasks, &hub.stop);
        })?;
        Some(hub)
    }

    /// Runs the hub until a future is ready. `None` if the hub was killed before.
    pub(super) fn drive<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.faults.wait_for_crash() => None,
                result = future => Some(result),
            }
        })
    }

    /// Submits a batch of a host, as its agent sends it.
    pub(super) fn submit(
        &self,
        host: &FakeHost,
        batch: Vec<Snapshot>,
    ) -> Option<Result<IngestResponse, SubmitError>> {
        let received = |(index, snapshot): (usize, Snapshot)| ReceivedSnapshot {
            index,
            encoded: Some(wire::encode_snapshot(&snapshot)),
            snapshot,
        };
        let submission = Submission {
            host: host.reference(),
            rights: HostSender::default(),
            sender: "agent".to_owned(),
            snapshots: batch.into_iter().enumerate().map(received).collect(),
            shapes: HashMap::new(),
            facts: None,
            clock: SnapshotClock::Sender { skew_ms: Some(host.stated_skew_ms()) },
        };
        self.drive(self.pipeline.submit_detached(submission, ()))
    }

    /// Runs all tasks until they wait for a time. Returns false if the hub was killed before.
    pub(super) fn run_until_idle(&self) -> bool {
        // Paused time advances by this millisecond only when no task can run.
        self.run_timers(Duration::from_millis(1))
    }

    /// Advances the clock of the hub, and runs its timers for a time. Returns false if the hub was killed
    /// before.
    pub(super) fn advance(&self, duration: Duration, timers: Duration) -> bool {
        self.clock.advance(duration);
        self.run_timers(timers)
    }

    /// Runs the timers of the hub for a time, while its clock stands.
    pub(super) fn run_timers(&self, duration: Duration) -> bool {
        self.drive(async { tokio::time::sleep(duration).await }).is_some()
    }

    /// Stops the hub after its tasks have ended. Returns false if it was killed before.
    pub(super) fn stop(self) -> bool {
        let stopped = self.drive(async {
            self.stop.cancel();
            self.tasks.close();
            self.tasks.wait().await;
            let _ = self.store.release_leases().await;
        });
        stopped.is_some()
    }
}

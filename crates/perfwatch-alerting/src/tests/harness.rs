//! Alerting with a real store, a recording notifier, and time that a test advances.

use super::paused_store::PausedStore;
use crate::{
    AlertDefinitions, Alerting, AlertingDeps, AlertingMetrics, AlertingSnapshot, StateChange, to_json,
};
use perfwatch_auth::encryption::Keyring;
use perfwatch_auth::{AuthDirectory, SessionLifetimes};
use perfwatch_history::{History, HistoryConfig, HistoryMetrics};
use perfwatch_live::host_registry::{HostRegistry, PollSchedule};
use perfwatch_live::{LiveFeed, PublishedSnapshot};
use perfwatch_model::{
    BootId, Catalog, Clock, Column, HostId, HostRef, HumanDuration, ManualClock, Shape, Snapshot,
};
use perfwatch_rules::channel::{Channel, ChannelFilter, NotificationTemplate};
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{
    ChannelKind, ChannelSettings, Delivery, Notification, Notifier, RenderedNotification, SendError,
};
use perfwatch_rules::rule::{GroupBy, HostSelector, Rule, Severity};
use perfwatch_rules::silence::{Matcher, Silence};
use perfwatch_store::definitions::DefinitionKind;
use perfwatch_store::outbox::{NotificationFilter, NotificationRow, NotificationState, Outbox};
use perfwatch_store::{CommitError, SharePrincipal, SqliteOptions, SqliteStore, Store, Transaction};
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Start of the tests: 2026-11-21, 10:00 UTC, a Saturday.
pub(super) const START_MS: i64 = 1_795_255_200_000;
/// Length of a step in which time advances: shorter steps would skip no timer, longer steps are a stall.
const TIME_STEP: Duration = Duration::from_secs(1);
/// Maximum time that [`TestHub::wait_for`] advances.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// Notification that a channel received.
#[derive(Debug)]
pub(super) struct SentNotification {
    pub(super) kind: String,
    pub(super) reason: NotificationReason,
    pub(super) subject: String,
}

/// Notifier that records notifications by channel kind, and fails on request.
#[derive(Default)]
pub(super) struct RecordingNotifier {
    sent: Mutex<Vec<SentNotification>>,
    failures: Mutex<Vec<(String, SendError)>>,
    /// Result of each successful delivery.
    pub(super) delivery: Mutex<Delivery>,
}

impl RecordingNotifier {
    pub(super) fn fail(&self, kind: &str, error: SendError) {
        self.failures.lock().unwrap().push((kind.to_owned(), error));
    }

    pub(super) fn recover(&self) {
        self.failures.lock().unwrap().clear();
    }

    pub(super) fn take_sent(&self) -> Vec<SentNotification> {
        std::mem::take(&mut *self.sent.lock().unwrap())
    }
}

/// Error of a receiver that is unavailable.
pub(super) fn unavailable(reason: &str) -> SendError {
    SendError::Transient { reason: reason.to_owned(), retry_after: None }
}

impl Notifier for RecordingNotifier {
    fn kinds(&self) -> &'static [ChannelKind] {
        &[]
    }

    fn validate(&self, _: &str, _: &ChannelSettings) -> Option<(String, String)> {
        None
    }

    fn render(&self, template: &str, _: &Notification) -> Result<String, String> {
        Ok(template.to_owned())
    }

    fn send(
        &self,
        kind: &str,
        _: &ChannelSettings,
        rendered: &RenderedNotification<'_>,
    ) -> Result<Delivery, SendError> {
        if let Some((_, error)) = self.failures.lock().unwrap().iter().find(|(failing, _)| failing == kind) {
            return Err(error.clone());
        }
        let Notification { reason, subject, .. } = rendered.notification;
        let sent = SentNotification { kind: kind.to_owned(), reason: *reason, subject: subject.clone() };
        self.sent.lock().unwrap().push(sent);
        Ok(self.delivery.lock().unwrap().clone())
    }
}

/// Clock, notifier and database folder, which outlive a restart of the hub.
pub(super) struct TestSite {
    pub(super) clock: Arc<ManualClock>,
    pub(super) notifier: Arc<RecordingNotifier>,
    pub(super) folder: tempfile::TempDir,
}

impl TestSite {
    pub(super) fn new() -> Self {
        Self {
            clock: Arc::new(ManualClock::starting_at(START_MS)),
            notifier: Arc::default(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Opens a hub whose tasks do not run yet.
    pub(super) async fn open(&self) -> TestHub {
        TestHub::open(self.folder.path(), self.clock.clone(), self.notifier.clone()).await
    }

    /// Opens a hub and starts its tasks.
    pub(super) async fn start(&self) -> TestHub {
        let hub = self.open().await;
        hub.start();
        hub
    }
}

/// Alerting with the parts of the hub that it depends on.
pub(super) struct TestHub {
    pub(super) clock: Arc<ManualClock>,
    pub(super) alerting: Arc<Alerting>,
    pub(super) history: Arc<History>,
    notifier: Arc<RecordingNotifier>,
    hosts: Arc<HostRegistry>,
    live_feed: Arc<LiveFeed>,
    shape: Arc<Shape>,
    stop: CancellationToken,
    tasks: TaskTracker,
    last_seq: u64,
}

fn shape() -> Arc<Shape> {
    let column = |metric: &'static str| Column {
        metric: metric.into(),
        dimension: "".into(),
        instance: "".into(),
        decimals: 1,
    };
    Arc::new(Shape::new(vec![column("cpu.usage"), column("memory.used_percent")]))
}

impl TestHub {
    async fn open(folder: &Path, clock: Arc<ManualClock>, notifier: Arc<RecordingNotifier>) -> Self {
        let clock_port: Arc<dyn Clock> = clock.clone();
        let options = SqliteOptions { folder: folder.to_owned(), budget_bytes: 8 << 30 };
        let store = PausedStore(SqliteStore::open(&options, clock_port.clone()).unwrap());
        let store: Arc<dyn Store> = Arc::new(store);
        let keyring = Arc::new(Keyring::new(&[[7; 32]]));
        let lifetimes = SessionLifetimes::default();
        let directory = AuthDirectory::open(store.clone(), clock_port.clone(), keyring.clone(), lifetimes);
        let directory = directory.await.unwrap();
        let hosts = Arc::new(HostRegistry::open(store.clone()).await.unwrap());
        let (config, metrics) = (HistoryConfig::default(), HistoryMetrics::default());
        let history = History::open(store.clone(), clock_port.clone(), config, metrics).await.unwrap();
        let live_feed = Arc::new(LiveFeed::new());
        let deps = AlertingDeps {
            workers: Arc::new(perfwatch_workers::WorkerPool::new(
                Arc::new(perfwatch_model::SystemClock::new()),
                perfwatch_workers::PoolConfig::default(),
            )),
            store,
            clock: clock_port,
            catalog: Arc::new(Catalog::default()),
            directory,
            hosts: hosts.clone(),
            live_feed: live_feed.clone(),
            history: history.clone(),
            notifier: notifier.clone(),
            keyring,
            base_url: "http://hub".to_owned(),
        };
        let alerting = Alerting::open(deps, AlertingMetrics::default()).await.unwrap();
        Self {
            clock,
            alerting,
            history,
            notifier,
            hosts,
            live_feed,
            shape: shape(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            last_seq: 0,
        }
    }

    pub(super) fn start(&self) {
        self.alerting.start(&self.tasks, &self.stop);
    }

    /// Fills the recent window from the history, as the hub does before its tasks start.
    pub(super) async fn restore_recent_window(&self) {
        for host in self.hosts.list() {
            let id = host.record.id;
            for row in self.history.recent(id, None, 0).await.unwrap() {
                self.live_feed.restore(
                    &host.record,
                    &host.record.name.as_str().into(),
                    row,
                    self.clock.wall_ms(),
                );
            }
        }
    }

    /// Ends all tasks without completing their work, as a crash does.
    pub(super) async fn crash(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Replaces all rules and silences, and adds or changes the channels.
    pub(super) async fn set_definitions(
        &self,
        rules: Vec<Rule>,
        channels: Vec<Channel>,
        silences: Vec<Silence>,
    ) {
        let build_change = |state: &AlertingSnapshot, _: i64| {
            let old = &state.definitions;
            let mut tx = Transaction::default();
            let mut stored_rules = tx.definitions(DefinitionKind::Rule);
            old.rules.iter().for_each(|rule| stored_rules.delete(rule.id));
            rules.iter().for_each(|rule| stored_rules.upsert(rule.id, &to_json(rule)));
            let mut stored_channels = tx.definitions(DefinitionKind::Channel);
            channels.iter().for_each(|channel| stored_channels.upsert(channel.id, &to_json(channel)));
            let mut stored_silences = tx.definitions(DefinitionKind::Silence);
            old.silences.iter().for_each(|silence| stored_silences.delete(silence.id));
            silences.iter().for_each(|silence| stored_silences.upsert(silence.id, &to_json(silence)));
            let definitions = AlertDefinitions {
                rules: rules.iter().cloned().map(Arc::new).collect(),
                channels: channels.iter().cloned().map(Arc::new).collect(),
                silences: silences.iter().cloned().map(Arc::new).collect(),
                mail_server: old.mail_server.clone(),
            };
            let change = StateChange { definitions: Some(definitions), incidents: None, tx };
            Ok::<_, CommitError>((change, ()))
        };
        self.alerting.update(None, build_change).await.unwrap();
        self.wait_until_idle().await;
    }

    /// Waits until all tasks are idle, without advancing the clock of the hub.
    pub(super) async fn wait_until_idle(&self) {
        // Paused time advances by this millisecond only when no task can run.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// Advances the clock of the hub and Tokio's time together. All timers run.
    pub(super) async fn advance(&self, duration: Duration) {
        let mut remaining = duration;
        while !remaining.is_zero() {
            let step = remaining.min(TIME_STEP);
            remaining -= step;
            self.clock.advance(step);
            tokio::time::sleep(step).await;
        }
        self.wait_until_idle().await;
    }

    pub(super) async fn advance_s(&self, seconds: u64) {
        self.advance(Duration::from_secs(seconds)).await;
    }

    /// Advances time until a condition is true, at most by [`WAIT_TIMEOUT`].
    pub(super) async fn wait_for(&self, condition: impl Fn(&Self) -> bool) {
        self.wait_until_idle().await;
        let deadline = self.clock.monotonic() + WAIT_TIMEOUT;
        while !condition(self) {
            if self.clock.monotonic() > deadline {
                let state = self.alerting.snapshot();
                let incidents: Vec<_> = state.incidents.iter().collect();
                panic!("timeout: {:?} {incidents:#?}", self.notifier.sent.lock().unwrap());
            }
            self.advance(TIME_STEP).await;
        }
    }

    /// Snapshot of a host that was taken some time ago, with values of both metrics.
    pub(super) fn next_snapshot(&mut self, interval_ms: u32, values: [i64; 2], ago_ms: i64) -> Arc<Snapshot> {
        self.last_seq += 1;
        Arc::new(Snapshot {
            boot: BootId::from_bytes(&[1; 16]).unwrap(),
            seq: self.last_seq,
            at_ms: self.clock.wall_ms() - ago_ms,
            ..self.template(interval_ms, values)
        })
    }

    /// Snapshot without identity and time, with values of both metrics.
    pub(super) fn template(&self, interval_ms: u32, values: [i64; 2]) -> Snapshot {
        Snapshot {
            boot: BootId::default(),
            seq: 0,
            at_ms: 0,
            interval_ms,
            shape: self.shape.clone(),
            values: values.to_vec(),
            processes: vec![],
            facts: None,
            errors: vec![],
        }
    }

    /// Ingests a snapshot of a host that was taken some time ago.
    pub(super) async fn send(&mut self, host: HostId, values: [i64; 2], ago_ms: i64) {
        let snapshot = self.next_snapshot(2_000, values, ago_ms);
        self.ingest(host, vec![(*snapshot).clone()], Some(0)).await;
    }

    /// Ingests the snapshots of a delivery, with the steps of the hub's pipeline. `skew_ms` is the offset of
    /// the sender's clock if it states its time.
    pub(super) async fn ingest(&self, host: HostId, mut snapshots: Vec<Snapshot>, skew_ms: Option<i64>) {
        let now_ms = self.clock.wall_ms();
        let host_ref = HostRef { id: Some(host), name: format!("host-{}", host.0.as_u128()) };
        let mut times: Vec<&mut i64> = snapshots.iter_mut().map(|snapshot| &mut snapshot.at_ms).collect();
        let new_clock = self.hosts.correct_clock(&host_ref, &mut times, skew_ms, now_ms);
        self.hosts.resolve(&host_ref, None, now_ms).await.unwrap();
        new_clock.into_iter().for_each(|clock| self.hosts.set_clock(host, clock));
        let (skew_ms, learned_ms) = (self.hosts.clock_skew_ms(host), self.hosts.interval_ms(host));
        for mut snapshot in snapshots {
            let declared_ms = snapshot.interval_ms;
            if declared_ms == 0 {
                snapshot.interval_ms = learned_ms;
            }
            let snapshot = Arc::new(snapshot);
            let _append_lock = self.history.append(host, vec![snapshot.clone()]).await.unwrap();
            self.hosts.record_snapshot(host, snapshot.at_ms, declared_ms, now_ms);
            let name = host_ref.name.as_str().into();
            let published = PublishedSnapshot::new(host, name, snapshot.clone(), self.clock.monotonic());
            self.live_feed.publish(published, SharePrincipal::Host(host), now_ms);
            self.alerting.evaluate_snapshot(host, &snapshot, skew_ms);
        }
    }

    /// Sets the poll schedules of agentless hosts.
    pub(super) fn schedule(&self, schedules: HashMap<HostId, PollSchedule>) {
        self.hosts.replace_poll_schedules(schedules);
    }

    /// Ingests a snapshot of a host every two seconds.
    pub(super) async fn run(&mut self, host: HostId, seconds: u64, cpu: i64) {
        for _ in 0..seconds / 2 {
            self.send(host, [cpu, 500], 0).await;
            self.advance_s(2).await;
        }
    }

    /// Removes and returns channel kind and reason of the sent notifications.
    pub(super) fn take_sent(&self) -> Vec<(String, NotificationReason)> {
        self.notifier.take_sent().into_iter().map(|sent| (sent.kind, sent.reason)).collect()
    }

    pub(super) fn sent_count(&self) -> usize {
        self.notifier.sent.lock().unwrap().len()
    }

    /// Newest notifications in a state, at most 100.
    pub(super) async fn list_notifications(&self, state: NotificationState) -> Vec<NotificationRow> {
        let filter = NotificationFilter { state: Some(state), limit: 100, ..NotificationFilter::default() };
        Outbox::list(self.alerting.store(), filter).await.unwrap()
    }
}

/// Host with the name `host-<number>`.
pub(super) fn host(number: u128) -> HostId {
    HostId(Uuid::from_u128(number))
}

pub(super) fn rule(number: u128, condition: serde_json::Value, hold_s: i64) -> Rule {
    Rule {
        id: Uuid::from_u128(1_000 + number),
        name: format!("rule {number}"),
        runbook: String::new(),
        enabled: true,
        severity: Severity::Warning,
        hosts: HostSelector::default(),
        condition: serde_json::from_value(condition).unwrap(),
        hold_for: HumanDuration::from_s(hold_s),
        group_by: GroupBy::Host,
    }
}

/// Rule on CPU usage above 90 % for 10 seconds, cleared at 80 %.
pub(super) fn cpu_rule() -> Rule {
    rule(1, json!({"kind": "threshold", "metric": "cpu.usage", "threshold": 90, "clear_threshold": 80}), 10)
}

pub(super) fn channel(kind: &str) -> Channel {
    Channel {
        id: Uuid::now_v7(),
        name: kind.to_owned(),
        kind: kind.to_owned(),
        enabled: true,
        settings: ChannelSettings::new(),
        filter: ChannelFilter::default(),
        escalate_after: HumanDuration::default(),
        repeat_interval: HumanDuration::default(),
        send_resolved: true,
        quiet_hours: None,
        template: NotificationTemplate::default(),
    }
}

/// Silence that starts at a time and lasts for some seconds.
pub(super) fn silence(matcher: Matcher, starts_ms: i64, seconds: i64) -> Silence {
    Silence {
        id: Uuid::now_v7(),
        matcher,
        comment: String::new(),
        created_by: "user a".into(),
        created_ms: starts_ms,
        starts_ms,
        ends_ms: Some(starts_ms + seconds * 1_000),
        weekly: None,
    }
}

/// Expected result of [`TestHub::take_sent`].
pub(super) fn sent_notifications(
    expected: &[(&str, NotificationReason)],
) -> Vec<(String, NotificationReason)> {
    expected.iter().map(|(kind, reason)| ((*kind).to_owned(), *reason)).collect()
}

//! Alerts under a clock that tests move, with channels that take down what they hear: what is
//! told, when, how often and in which order; over restarts too.

mod backtester;
mod channel_secrets;
mod fairness;
mod timing;

use super::*;
use perfwatch_auth::SessionLifetimes;
use perfwatch_history::{HistoryConfig, HistoryMetrics as HistoryCounts};
use perfwatch_live::PublishedSnapshot;
use perfwatch_model::{BootId, Column, HostRef, HumanDuration, ManualClock, Shape, Snapshot};
use perfwatch_rules::channel::{Channel, ChannelFilter, NotificationTemplate, QuietHours};
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{ChannelKind, ChannelSettings, RenderedNotification, SendError};
use perfwatch_rules::rule::{HostSelector, Rule, Severity};
use perfwatch_rules::silence::{Matcher, Silence};
use perfwatch_rules::weekly_window::WeeklyWindow;
use perfwatch_store::definitions::DefinitionKind;
use perfwatch_store::incidents::IncidentEventKind;
use perfwatch_store::outbox::{NotificationFilter, NotificationState};
use perfwatch_store::{SqliteOptions, SqliteStore};
use serde_json::json;
use std::path::Path;
use std::sync::Mutex as StdMutex;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// 2026-11-21, 10:00 UTC: a Saturday.
const T0: i64 = 1_795_255_200_000;

/// What channels say: each kind is one ear.
#[derive(Default)]
struct RecordingNotifier {
    sent: StdMutex<Vec<(String, NotificationReason, String)>>,
    /// Kinds that don't take anything now, and why.
    deaf: StdMutex<Vec<(String, SendError)>>,
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
        letter: &RenderedNotification<'_>,
    ) -> Result<(), SendError> {
        if let Some((_, error)) = self.deaf.lock().unwrap().iter().find(|(deaf, _)| deaf == kind) {
            return Err(error.clone());
        }
        let said = (kind.to_owned(), letter.notification.reason, letter.notification.subject.clone());
        self.sent.lock().unwrap().push(said);
        Ok(())
    }
}

struct TestInstall {
    clock: Arc<ManualClock>,
    ears: Arc<RecordingNotifier>,
    alerting: Arc<Alerting>,
    fleet: Arc<HostRegistry>,
    live: Arc<LiveFeed>,
    history: Arc<History>,
    stop: CancellationToken,
    tasks: TaskTracker,
    seq: u64,
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

impl TestInstall {
    async fn open(folder: &Path, clock: &Arc<ManualClock>, ears: &Arc<RecordingNotifier>) -> Self {
        let clock_port: Arc<dyn Clock> = clock.clone();
        let options = SqliteOptions { folder: folder.to_owned(), budget_bytes: 64 << 20 };
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&options, clock_port.clone()).unwrap());
        let vault = Arc::new(Keyring::new(&[[7; 32]]));
        let people = AuthDirectory::open(
            store.clone(),
            clock_port.clone(),
            vault.clone(),
            SessionLifetimes::default(),
        )
        .await
        .unwrap();
        let fleet = Arc::new(HostRegistry::open(store.clone()).await.unwrap());
        let config = HistoryConfig::default();
        let history =
            History::open(store.clone(), clock_port.clone(), config, HistoryCounts::default()).await.unwrap();
        let live = Arc::new(LiveFeed::new());
        let rooms = AlertingDeps {
            store,
            clock: clock_port,
            catalog: Arc::new(Catalog::default()),
            directory: people,
            hosts: fleet.clone(),
            live_feed: live.clone(),
            history: history.clone(),
            notifier: ears.clone(),
            keyring: vault,
            base_url: "http://hub".to_owned(),
        };
        let alerting = Alerting::open(rooms, AlertingMetrics::default()).await.unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        Self { clock: clock.clone(), ears: ears.clone(), alerting, fleet, live, history, stop, tasks, seq: 0 }
    }

    fn start(&self) {
        self.alerting.start(&self.tasks, &self.stop);
    }

    /// Dies: nothing more is done, nothing is put in order.
    async fn crash(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// These rules and channels, and no others.
    async fn set_definitions(&self, rules: Vec<Rule>, channels: Vec<Channel>, silences: Vec<Silence>) {
        let plan = |state: &AlertingSnapshot, _: i64| {
            let mut changes: Vec<SqlStatement> =
                state.definitions.rules.iter().map(|rule| DefinitionKind::Rule.delete(rule.id)).collect();
            changes
                .extend(state.definitions.silences.iter().map(|one| DefinitionKind::Silence.delete(one.id)));
            changes.extend(
                rules.iter().map(|rule| DefinitionKind::Rule.upsert(rule.id, &definitions::to_json(rule))),
            );
            changes.extend(
                channels.iter().map(|one| DefinitionKind::Channel.upsert(one.id, &definitions::to_json(one))),
            );
            changes.extend(
                silences.iter().map(|one| DefinitionKind::Silence.upsert(one.id, &definitions::to_json(one))),
            );
            let asked = AlertDefinitions {
                rules: rules.iter().cloned().map(Arc::new).collect(),
                channels: channels.iter().cloned().map(Arc::new).collect(),
                silences: silences.iter().cloned().map(Arc::new).collect(),
            };
            Ok::<_, CommitError>((
                StateChange { definitions: Some(asked), incidents: None, statements: changes },
                (),
            ))
        };
        self.alerting.update(None, plan).await.unwrap();
        wait_until_idle().await;
    }

    /// A snapshot of a host as it comes in now, taken some time ago.
    async fn send(&mut self, host: HostId, shape: &Arc<Shape>, values: [i64; 2], ago_ms: i64) {
        self.seq += 1;
        let now_ms = self.clock.wall_ms();
        let snapshot = Arc::new(Snapshot {
            boot: BootId::from_bytes(&[1; 16]).unwrap(),
            seq: self.seq,
            at_ms: now_ms - ago_ms,
            interval_ms: 2_000,
            shape: shape.clone(),
            values: values.to_vec(),
            processes: vec![],
            facts: None,
            errors: vec![],
        });
        let name = HostRef { id: Some(host), name: format!("host-{}", host.0.as_u128()) };
        self.fleet.resolve(&name, None, now_ms).await.unwrap();
        let _turn = self.history.append(host, vec![snapshot.clone()]).await.unwrap();
        self.fleet.record_snapshot(host, snapshot.at_ms, 2_000, now_ms, Some(0));
        let accepted =
            PublishedSnapshot::new(host, name.name.as_str().into(), snapshot.clone(), self.clock.monotonic());
        self.live.publish(Arc::new(accepted), now_ms);
        self.alerting.observe(host, &snapshot, Some(0));
    }

    /// So many seconds of a host, one snapshot each two.
    async fn run(&mut self, host: HostId, shape: &Arc<Shape>, seconds: i64, cpu: i64) {
        for _ in 0..seconds / 2 {
            self.send(host, shape, [cpu, 500], 0).await;
            self.clock.advance(Duration::from_secs(2));
            wait_until_idle().await;
        }
    }

    fn sent(&self) -> Vec<(String, NotificationReason)> {
        self.ears.sent.lock().unwrap().drain(..).map(|(kind, notice, _)| (kind, notice)).collect()
    }

    /// Until the tasks that wait for real seconds had their turn.
    async fn wait_for(&self, what: impl Fn(&Self) -> bool) {
        for _ in 0..200 {
            if what(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let state = self.alerting.snapshot();
        let board: Vec<_> = state.incidents.iter().collect();
        panic!("it did not happen: {:?} {board:#?}", self.ears.sent.lock().unwrap());
    }

    fn sent_reasons(&self) -> usize {
        self.ears.sent.lock().unwrap().len()
    }

    async fn messages(&self, state: NotificationState) -> Vec<perfwatch_store::outbox::NotificationRow> {
        let filter = NotificationFilter { state: Some(state), limit: 100, ..NotificationFilter::default() };
        Outbox::list(self.alerting.store(), filter).await.unwrap()
    }
}

/// Other tasks get their turn.
async fn wait_until_idle() {
    tokio::time::sleep(Duration::from_millis(3)).await;
}

fn host(number: u128) -> HostId {
    HostId(Uuid::from_u128(number))
}

fn rule(number: u128, when: serde_json::Value, for_s: i64) -> Rule {
    Rule {
        id: Uuid::from_u128(1_000 + number),
        name: format!("rule {number}"),
        runbook: String::new(),
        enabled: true,
        severity: Severity::Warning,
        hosts: HostSelector::default(),
        condition: serde_json::from_value(when).unwrap(),
        hold_for: HumanDuration::from_s(for_s),
        group_by: perfwatch_rules::rule::GroupBy::Host,
    }
}

fn cpu() -> Rule {
    rule(1, json!({"kind": "value", "metric": "cpu.usage", "threshold": 90, "clear": 80}), 10)
}

fn channel(kind: &str) -> Channel {
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

fn sent_notifications(kinds: &[(&str, NotificationReason)]) -> Vec<(String, NotificationReason)> {
    kinds.iter().map(|(kind, notice)| ((*kind).to_owned(), *notice)).collect()
}

use NotificationReason::{Opened, Reminder, Reopened, Resolved};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flapping_load_is_one_incident() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) =
        (Arc::new(ManualClock::starting_at(T0)), Arc::new(RecordingNotifier::default()), shape());
    let mut site = TestInstall::open(folder.path(), &clock, &ears).await;
    site.start();
    site.set_definitions(vec![cpu()], vec![channel("a")], vec![]).await;
    site.run(host(1), &shape, 20, 200).await;
    site.run(host(1), &shape, 20, 950).await;
    site.wait_for(|site| site.sent_reasons() == 1).await;
    for _ in 0..10 {
        // Between the thresholds it goes on; below, it is over until it comes back.
        site.run(host(1), &shape, 10, 850).await;
        site.run(host(1), &shape, 4, 300).await;
        site.run(host(1), &shape, 20, 950).await;
    }
    site.run(host(1), &shape, 4, 300).await;
    site.wait_for(|site| site.sent_reasons() >= 4).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(
        site.sent(),
        sent_notifications(&[("a", Opened), ("a", Resolved), ("a", Reopened), ("a", Resolved)])
    );
    let state = site.alerting.snapshot();
    assert_eq!(state.incidents.iter().count(), 1);
    assert_eq!(state.incidents.iter().next().unwrap().alerts.len(), 11);
    // Calm for long enough, it is over for good, and that is said.
    clock.advance(Duration::from_secs(601));
    site.wait_for(|site| site.sent_reasons() == 1).await;
    assert_eq!(site.sent(), sent_notifications(&[("a", Resolved)]));
    site.crash().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_sends_only_unsent_notifications() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) =
        (Arc::new(ManualClock::starting_at(T0)), Arc::new(RecordingNotifier::default()), shape());
    let mut site = TestInstall::open(folder.path(), &clock, &ears).await;
    site.start();
    site.set_definitions(vec![cpu()], vec![channel("a"), channel("b")], vec![]).await;
    // One takes it, one does not: then the hub dies.
    ears.deaf
        .lock()
        .unwrap()
        .push(("b".to_owned(), SendError::Retry { reason: "nobody there".to_owned(), retry_after: None }));
    site.run(host(1), &shape, 20, 950).await;
    site.wait_for(|site| site.sent_reasons() == 1).await;
    // Another one is half way there: 6 of 10 seconds.
    site.run(host(2), &shape, 8, 950).await;
    site.crash().await;
    assert_eq!(ears.sent.lock().unwrap().len(), 1);
    ears.deaf.lock().unwrap().clear();

    let mut site = TestInstall::open(folder.path(), &clock, &ears).await;
    for known in site.fleet.list() {
        let rows = site.history.recent(known.record.id, None, 0).await.unwrap();
        for row in rows {
            site.live.restore(known.record.id, &known.record.name.as_str().into(), row, clock.wall_ms());
        }
    }
    site.start();
    clock.advance(Duration::from_secs(2));
    site.wait_for(|site| site.sent_reasons() >= 1).await;
    site.run(host(1), &shape, 4, 950).await;
    site.run(host(2), &shape, 6, 950).await;
    // The second goes on where it was, and fires after its ten seconds.
    site.wait_for(|site| site.sent_reasons() >= 4).await;
    let mut heard = site.sent();
    heard.sort_by_key(|(kind, _)| kind.clone());
    assert_eq!(heard, sent_notifications(&[("a", Opened), ("a", Opened), ("b", Opened), ("b", Opened)]));
    site.run(host(1), &shape, 4, 100).await;
    site.wait_for(|site| site.sent_reasons() == 2).await;
    assert_eq!(site.messages(NotificationState::Pending).await.len(), 0);
    site.crash().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channel_outage_preserves_order_and_permanent_failure_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) =
        (Arc::new(ManualClock::starting_at(T0)), Arc::new(RecordingNotifier::default()), shape());
    let mut site = TestInstall::open(folder.path(), &clock, &ears).await;
    site.start();
    site.set_definitions(vec![cpu()], vec![channel("down"), channel("refuses")], vec![]).await;
    let down =
        ("down".to_owned(), SendError::Retry { reason: "connection refused".to_owned(), retry_after: None });
    let refuses = ("refuses".to_owned(), SendError::Permanent("HTTP 400".to_owned()));
    ears.deaf.lock().unwrap().extend([down, refuses]);
    site.run(host(1), &shape, 20, 950).await;
    site.run(host(1), &shape, 4, 100).await;
    site.run(host(2), &shape, 20, 950).await;
    for _ in 0..60 {
        clock.advance(Duration::from_secs(60));
        site.send(host(1), &shape, [100, 500], 0).await;
        site.send(host(2), &shape, [950, 500], 0).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(site.sent_reasons(), 0);
    let waiting = site.messages(NotificationState::Pending).await;
    assert_eq!(waiting.len(), 3, "{waiting:?}");
    assert!(
        waiting.iter().any(|row| row.attempts >= 2 && row.error.as_deref() == Some("connection refused")),
        "{waiting:?}"
    );
    let dead = site.messages(NotificationState::Failed).await;
    assert!(dead.len() >= 2 && dead.iter().all(|row| row.error.as_deref() == Some("HTTP 400")), "{dead:?}");
    ears.deaf.lock().unwrap().clear();
    clock.advance(Duration::from_secs(601));
    site.send(host(2), &shape, [950, 500], 0).await;
    site.wait_for(|site| site.sent_reasons() == 3).await;
    let heard: Vec<(NotificationReason, String)> =
        ears.sent.lock().unwrap().iter().map(|(_, notice, subject)| (*notice, subject.clone())).collect();
    assert_eq!(
        heard,
        [
            (Opened, "host-1: rule 1".to_owned()),
            (Resolved, "host-1: rule 1".to_owned()),
            (Opened, "host-2: rule 1".to_owned()),
        ]
    );
    site.crash().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_hours_defer_and_silences_suppress() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) =
        (Arc::new(ManualClock::starting_at(T0)), Arc::new(RecordingNotifier::default()), shape());
    let mut site = TestInstall::open(folder.path(), &clock, &ears).await;
    site.start();
    let hours =
        WeeklyWindow { days: vec![], from: "09:00".into(), to: "11:00".into(), timezone: String::new() };
    let quiet = Channel {
        quiet_hours: Some(QuietHours { window: hours, except_severity: Severity::Critical }),
        ..channel("quiet")
    };
    let silence = Silence {
        id: Uuid::now_v7(),
        matcher: Matcher { hosts: vec![host(3).0], ..Matcher::default() },
        comment: String::new(),
        created_by: "user a".into(),
        created_ms: T0,
        starts_ms: T0,
        ends_ms: Some(T0 + 30 * 60_000),
        weekly: None,
    };
    site.set_definitions(vec![cpu()], vec![quiet, channel("loud")], vec![silence]).await;
    for number in 1..=3 {
        site.run(host(number), &shape, 20, 950).await;
    }
    site.wait_for(|site| site.sent_reasons() == 2).await;
    assert_eq!(
        site.sent(),
        sent_notifications(&[("loud", Opened), ("loud", Opened)]),
        "the third is silenced"
    );
    // The silence ends while it fires.
    clock.advance(Duration::from_secs(30 * 60));
    for number in 1..=3 {
        site.send(host(number), &shape, [950, 500], 0).await;
    }
    site.wait_for(|site| site.sent_reasons() == 1).await;
    assert_eq!(site.sent(), sent_notifications(&[("loud", Opened)]));
    // The quiet hours end: one message says what there was.
    clock.advance(Duration::from_secs(31 * 60));
    site.wait_for(|site| site.sent_reasons() == 1).await;
    let heard = ears.sent.lock().unwrap().drain(..).collect::<Vec<_>>();
    assert_eq!((heard[0].0.as_str(), heard[0].2.as_str()), ("quiet", "3 messages that waited"));
    site.crash().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgment_stops_escalation_until_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) =
        (Arc::new(ManualClock::starting_at(T0)), Arc::new(RecordingNotifier::default()), shape());
    let mut site = TestInstall::open(folder.path(), &clock, &ears).await;
    site.start();
    let boss = Channel { escalate_after: HumanDuration::from_s(900), ..channel("boss") };
    let team = Channel { repeat_interval: HumanDuration::from_s(600), ..channel("team") };
    site.set_definitions(vec![cpu()], vec![boss, team], vec![]).await;
    site.run(host(1), &shape, 20, 950).await;
    site.wait_for(|site| site.sent_reasons() == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    clock.advance(Duration::from_secs(600));
    site.wait_for(|site| site.sent_reasons() == 2).await;
    assert_eq!(site.sent(), sent_notifications(&[("team", Opened), ("team", Reminder)]));
    // Somebody takes it on for half an hour: neither the boss nor the team hears more.
    let id = site.alerting.snapshot().incidents.iter().next().unwrap().incident.id;
    let change = |live: &mut OpenIncident, now_ms: i64| {
        let until_ms = Some(now_ms + 1_800_000);
        live.incident.ack =
            Some(perfwatch_rules::incident::Ack { by: "user a".into(), at_ms: now_ms, until_ms });
        Ok::<_, CommitError>((
            incident_service::timeline_event(id, now_ms, IncidentEventKind::Acknowledged, "takes it on"),
            None,
        ))
    };
    assert!(site.alerting.update_incident(id, None, change).await.unwrap());
    clock.advance(Duration::from_secs(700));
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    assert_eq!(site.sent(), []);
    let skipped = site.messages(NotificationState::Suppressed).await;
    assert!(skipped.iter().any(|row| row.error.as_deref() == Some("somebody took it on")), "{skipped:?}");
    // The half hour is over.
    clock.advance(Duration::from_secs(1_200));
    site.wait_for(|site| site.sent_reasons() >= 1).await;
    assert!(site.sent().contains(&("team".to_owned(), Reminder)));
    site.crash().await;
}

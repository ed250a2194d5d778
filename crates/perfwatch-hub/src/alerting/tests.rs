//! Alerts under a clock that tests move, with channels that take down what they hear: what is
//! told, when, how often and in which order; over restarts too.

mod backtest;
mod fair;
mod sealed;
mod times;

use super::*;
use crate::SessionTimes;
use crate::history::{Counts as HistoryCounts, HistoryConfig};
use crate::live::Accepted;
use perfwatch_alert::calendar::Weekly;
use perfwatch_alert::channel::{Channel, Hears, Quiet, Template};
use perfwatch_alert::deliver::{Kind, Letter, SendError, Settings};
use perfwatch_alert::incident::Notice;
use perfwatch_alert::rule::{Rule, Selector, Severity};
use perfwatch_alert::silence::{Matcher, Silence};
use perfwatch_model::{BootId, Column, HostRef, ManualClock, Shape, Snapshot, Span};
use perfwatch_store::alerts::{Noun, OutboxFilter};
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
struct Ears {
    heard: StdMutex<Vec<(String, Notice, String)>>,
    /// Kinds that don't take anything now, and why.
    deaf: StdMutex<Vec<(String, SendError)>>,
}

impl Notifier for Ears {
    fn kinds(&self) -> &'static [Kind] {
        &[]
    }

    fn problem(&self, _: &str, _: &Settings) -> Option<(String, String)> {
        None
    }

    fn render(&self, template: &str, _: &Message) -> Result<String, String> {
        Ok(template.to_owned())
    }

    fn send(&self, kind: &str, _: &Settings, letter: &Letter<'_>) -> Result<(), SendError> {
        if let Some((_, error)) = self.deaf.lock().unwrap().iter().find(|(deaf, _)| deaf == kind) {
            return Err(error.clone());
        }
        let said = (kind.to_owned(), letter.message.notice, letter.message.subject.clone());
        self.heard.lock().unwrap().push(said);
        Ok(())
    }
}

struct Site {
    clock: Arc<ManualClock>,
    ears: Arc<Ears>,
    alerting: Arc<Alerting>,
    fleet: Arc<Fleet>,
    live: Arc<Live>,
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

impl Site {
    async fn open(folder: &Path, clock: &Arc<ManualClock>, ears: &Arc<Ears>) -> Self {
        let clock_port: Arc<dyn Clock> = clock.clone();
        let options = SqliteOptions { folder: folder.to_owned(), budget_bytes: 64 << 20 };
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&options, clock_port.clone()).unwrap());
        let vault = Arc::new(Vault::new(&[[7; 32]]));
        let people = People::open(store.clone(), clock_port.clone(), vault.clone(), SessionTimes::default())
            .await
            .unwrap();
        let fleet = Arc::new(Fleet::open(store.clone()).await.unwrap());
        let config = HistoryConfig::default();
        let history =
            History::open(store.clone(), clock_port.clone(), config, HistoryCounts::default()).await.unwrap();
        let live = Arc::new(Live::new());
        let rooms = Rooms {
            store,
            clock: clock_port,
            catalog: Arc::new(Catalog::default()),
            people,
            fleet: fleet.clone(),
            live: live.clone(),
            history: history.clone(),
            notifier: ears.clone(),
            vault,
            url: "http://hub".to_owned(),
        };
        let alerting = Alerting::open(rooms, Counts::default()).await.unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        Self { clock: clock.clone(), ears: ears.clone(), alerting, fleet, live, history, stop, tasks, seq: 0 }
    }

    fn start(&self) {
        self.alerting.start(&self.tasks, &self.stop);
    }

    /// Dies: nothing more is done, nothing is put in order.
    async fn die(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// These rules and channels, and no others.
    async fn ask(&self, rules: Vec<Rule>, channels: Vec<Channel>, silences: Vec<Silence>) {
        let plan = |state: &State, _: i64| {
            let mut changes: Vec<Change> =
                state.asked.rules.iter().map(|rule| Noun::Rule.remove(rule.id)).collect();
            changes.extend(state.asked.silences.iter().map(|one| Noun::Silence.remove(one.id)));
            changes.extend(rules.iter().map(|rule| Noun::Rule.put(rule.id, &asked::body(rule))));
            changes.extend(channels.iter().map(|one| Noun::Channel.put(one.id, &asked::body(one))));
            changes.extend(silences.iter().map(|one| Noun::Silence.put(one.id, &asked::body(one))));
            let asked = Asked {
                rules: rules.iter().cloned().map(Arc::new).collect(),
                channels: channels.iter().cloned().map(Arc::new).collect(),
                silences: silences.iter().cloned().map(Arc::new).collect(),
            };
            Ok::<_, CommitError>((Planned { asked: Some(asked), board: None, changes }, ()))
        };
        self.alerting.change(None, plan).await.unwrap();
        settled().await;
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
        self.fleet.heard(host, snapshot.at_ms, 2_000, now_ms, Some(0));
        let accepted =
            Accepted::new(host, name.name.as_str().into(), snapshot.clone(), self.clock.monotonic());
        self.live.publish(Arc::new(accepted), now_ms);
        self.alerting.observe(host, &snapshot, Some(0));
    }

    /// So many seconds of a host, one snapshot each two.
    async fn run(&mut self, host: HostId, shape: &Arc<Shape>, seconds: i64, cpu: i64) {
        for _ in 0..seconds / 2 {
            self.send(host, shape, [cpu, 500], 0).await;
            self.clock.advance(Duration::from_secs(2));
            settled().await;
        }
    }

    fn heard(&self) -> Vec<(String, Notice)> {
        self.ears.heard.lock().unwrap().drain(..).map(|(kind, notice, _)| (kind, notice)).collect()
    }

    /// Until the tasks that wait for real seconds had their turn.
    async fn wait_for(&self, what: impl Fn(&Self) -> bool) {
        for _ in 0..200 {
            if what(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let state = self.alerting.now();
        let board: Vec<_> = state.board.incidents().collect();
        panic!("it did not happen: {:?} {board:#?}", self.ears.heard.lock().unwrap());
    }

    fn said(&self) -> usize {
        self.ears.heard.lock().unwrap().len()
    }

    async fn messages(&self, state: &str) -> Vec<perfwatch_store::alerts::OutboxRow> {
        let filter = OutboxFilter { state: Some(state.to_owned()), limit: 100, ..OutboxFilter::default() };
        Outbox::list(self.alerting.store(), filter).await.unwrap()
    }
}

/// Other tasks get their turn.
async fn settled() {
    tokio::time::sleep(Duration::from_millis(3)).await;
}

fn host(number: u128) -> HostId {
    HostId(Uuid::from_u128(number))
}

fn rule(number: u128, when: serde_json::Value, for_s: i64) -> Rule {
    Rule {
        id: Uuid::from_u128(1_000 + number),
        name: format!("rule {number}"),
        note: String::new(),
        enabled: true,
        severity: Severity::Warning,
        hosts: Selector::default(),
        when: serde_json::from_value(when).unwrap(),
        for_: Span::from_s(for_s),
        group: perfwatch_alert::rule::Group::Host,
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
        settings: Settings::new(),
        hears: Hears::default(),
        after: Span::default(),
        repeat: Span::default(),
        resolved: true,
        quiet: None,
        template: Template::default(),
    }
}

fn told(kinds: &[(&str, Notice)]) -> Vec<(String, Notice)> {
    kinds.iter().map(|(kind, notice)| ((*kind).to_owned(), *notice)).collect()
}

use Notice::{Opened, Reminder, Reopened, Resolved};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_comes_and_goes_is_one_incident() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) = (Arc::new(ManualClock::at(T0)), Arc::new(Ears::default()), shape());
    let mut site = Site::open(folder.path(), &clock, &ears).await;
    site.start();
    site.ask(vec![cpu()], vec![channel("a")], vec![]).await;
    site.run(host(1), &shape, 20, 200).await;
    site.run(host(1), &shape, 20, 950).await;
    site.wait_for(|site| site.said() == 1).await;
    for _ in 0..10 {
        // Between the thresholds it goes on; below, it is over until it comes back.
        site.run(host(1), &shape, 10, 850).await;
        site.run(host(1), &shape, 4, 300).await;
        site.run(host(1), &shape, 20, 950).await;
    }
    site.run(host(1), &shape, 4, 300).await;
    site.wait_for(|site| site.said() >= 4).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(site.heard(), told(&[("a", Opened), ("a", Resolved), ("a", Reopened), ("a", Resolved)]));
    let state = site.alerting.now();
    assert_eq!(state.board.incidents().count(), 1);
    assert_eq!(state.board.incidents().next().unwrap().alerts.len(), 11);
    // Calm for long enough, it is over for good, and that is said.
    clock.advance(Duration::from_secs(601));
    site.wait_for(|site| site.said() == 1).await;
    assert_eq!(site.heard(), told(&[("a", Resolved)]));
    site.die().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_told_before_a_restart_is_not_told_again_and_what_was_not_is() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) = (Arc::new(ManualClock::at(T0)), Arc::new(Ears::default()), shape());
    let mut site = Site::open(folder.path(), &clock, &ears).await;
    site.start();
    site.ask(vec![cpu()], vec![channel("a"), channel("b")], vec![]).await;
    // One takes it, one does not: then the hub dies.
    ears.deaf
        .lock()
        .unwrap()
        .push(("b".to_owned(), SendError::Retry { why: "nobody there".to_owned(), after: None }));
    site.run(host(1), &shape, 20, 950).await;
    site.wait_for(|site| site.said() == 1).await;
    // Another one is half way there: 6 of 10 seconds.
    site.run(host(2), &shape, 8, 950).await;
    site.die().await;
    assert_eq!(ears.heard.lock().unwrap().len(), 1);
    ears.deaf.lock().unwrap().clear();

    let mut site = Site::open(folder.path(), &clock, &ears).await;
    for known in site.fleet.all() {
        let rows = site.history.recent(known.record.id, None, 0).await.unwrap();
        for row in rows {
            site.live.restore(known.record.id, &known.record.name.as_str().into(), row, clock.wall_ms());
        }
    }
    site.start();
    clock.advance(Duration::from_secs(2));
    site.wait_for(|site| site.said() >= 1).await;
    site.run(host(1), &shape, 4, 950).await;
    site.run(host(2), &shape, 6, 950).await;
    // The second goes on where it was, and fires after its ten seconds.
    site.wait_for(|site| site.said() >= 4).await;
    let mut heard = site.heard();
    heard.sort_by_key(|(kind, _)| kind.clone());
    assert_eq!(heard, told(&[("a", Opened), ("a", Opened), ("b", Opened), ("b", Opened)]));
    site.run(host(1), &shape, 4, 100).await;
    site.wait_for(|site| site.said() == 2).await;
    assert_eq!(site.messages("waiting").await.len(), 0);
    site.die().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_down_for_an_hour_hears_all_in_order_and_one_that_refuses_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) = (Arc::new(ManualClock::at(T0)), Arc::new(Ears::default()), shape());
    let mut site = Site::open(folder.path(), &clock, &ears).await;
    site.start();
    site.ask(vec![cpu()], vec![channel("down"), channel("refuses")], vec![]).await;
    let down = ("down".to_owned(), SendError::Retry { why: "connection refused".to_owned(), after: None });
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
    assert_eq!(site.said(), 0);
    let waiting = site.messages("waiting").await;
    assert_eq!(waiting.len(), 3, "{waiting:?}");
    assert!(
        waiting.iter().any(|row| row.tries >= 2 && row.error.as_deref() == Some("connection refused")),
        "{waiting:?}"
    );
    let dead = site.messages("dead").await;
    assert!(dead.len() >= 2 && dead.iter().all(|row| row.error.as_deref() == Some("HTTP 400")), "{dead:?}");
    ears.deaf.lock().unwrap().clear();
    clock.advance(Duration::from_secs(601));
    site.send(host(2), &shape, [950, 500], 0).await;
    site.wait_for(|site| site.said() == 3).await;
    let heard: Vec<(Notice, String)> =
        ears.heard.lock().unwrap().iter().map(|(_, notice, subject)| (*notice, subject.clone())).collect();
    assert_eq!(
        heard,
        [
            (Opened, "host-1: rule 1".to_owned()),
            (Resolved, "host-1: rule 1".to_owned()),
            (Opened, "host-2: rule 1".to_owned()),
        ]
    );
    site.die().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_hours_defer_and_silences_hold_back() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) = (Arc::new(ManualClock::at(T0)), Arc::new(Ears::default()), shape());
    let mut site = Site::open(folder.path(), &clock, &ears).await;
    site.start();
    let hours = Weekly { days: vec![], from: "09:00".into(), to: "11:00".into(), timezone: String::new() };
    let quiet = Channel { quiet: Some(Quiet { hours, but: Severity::Critical }), ..channel("quiet") };
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
    site.ask(vec![cpu()], vec![quiet, channel("loud")], vec![silence]).await;
    for number in 1..=3 {
        site.run(host(number), &shape, 20, 950).await;
    }
    site.wait_for(|site| site.said() == 2).await;
    assert_eq!(site.heard(), told(&[("loud", Opened), ("loud", Opened)]), "the third is silenced");
    // The silence ends while it fires.
    clock.advance(Duration::from_secs(30 * 60));
    for number in 1..=3 {
        site.send(host(number), &shape, [950, 500], 0).await;
    }
    site.wait_for(|site| site.said() == 1).await;
    assert_eq!(site.heard(), told(&[("loud", Opened)]));
    // The quiet hours end: one message says what there was.
    clock.advance(Duration::from_secs(31 * 60));
    site.wait_for(|site| site.said() == 1).await;
    let heard = ears.heard.lock().unwrap().drain(..).collect::<Vec<_>>();
    assert_eq!((heard[0].0.as_str(), heard[0].2.as_str()), ("quiet", "3 messages that waited"));
    site.die().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_it_on_is_not_escalated_and_reminders_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) = (Arc::new(ManualClock::at(T0)), Arc::new(Ears::default()), shape());
    let mut site = Site::open(folder.path(), &clock, &ears).await;
    site.start();
    let boss = Channel { after: Span::from_s(900), ..channel("boss") };
    let team = Channel { repeat: Span::from_s(600), ..channel("team") };
    site.ask(vec![cpu()], vec![boss, team], vec![]).await;
    site.run(host(1), &shape, 20, 950).await;
    site.wait_for(|site| site.said() == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    clock.advance(Duration::from_secs(600));
    site.wait_for(|site| site.said() == 2).await;
    assert_eq!(site.heard(), told(&[("team", Opened), ("team", Reminder)]));
    // Somebody takes it on for half an hour: neither the boss nor the team hears more.
    let id = site.alerting.now().board.incidents().next().unwrap().incident.id;
    let change = |live: &mut LiveIncident, now_ms: i64| {
        let until_ms = Some(now_ms + 1_800_000);
        live.incident.ack =
            Some(perfwatch_alert::incident::Ack { by: "user a".into(), at_ms: now_ms, until_ms });
        Ok::<_, CommitError>((record::event(id, now_ms, "acknowledged", "takes it on"), None))
    };
    assert!(site.alerting.change_incident(id, None, change).await.unwrap());
    clock.advance(Duration::from_secs(700));
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    assert_eq!(site.heard(), []);
    let skipped = site.messages("skipped").await;
    assert!(skipped.iter().any(|row| row.error.as_deref() == Some("somebody took it on")), "{skipped:?}");
    // The half hour is over.
    clock.advance(Duration::from_secs(1_200));
    site.wait_for(|site| site.said() >= 1).await;
    assert!(site.heard().contains(&("team".to_owned(), Reminder)));
    site.die().await;
}

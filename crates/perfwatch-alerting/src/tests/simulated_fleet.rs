//! A simulated fleet of mixed senders with wrong clocks, outages, load and restarts of the hub: no false
//! alert, and none missed.
//!
//! `FLEET_HOURS` and `FLEET_HOSTS` set another size than that of every run.

use super::harness::{START_MS, TestHub, TestSite, host, rule};
use perfwatch_live::host_registry::PollSchedule;
use perfwatch_model::{BootId, Clock, HostId, Snapshot};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use uuid::Uuid;

const DEFAULT_HOURS: u64 = 2;
const DEFAULT_HOSTS: u64 = 8;
/// Longest interval of an agentless host.
const MAX_SSH_INTERVAL_S: u64 = 900;
/// Grace period of the rule on hosts without data.
const GRACE_S: i64 = 60;
/// Hold time of the rule on load.
const HOLD_S: i64 = 60;
const RULE_NO_DATA: u128 = 2;
const RULE_LOAD: u128 = 3;
const NORMAL: [i64; 2] = [300, 500];
const LOADED: [i64; 2] = [950, 500];

/// Way in which a host is monitored.
#[derive(Debug, Clone, Copy, PartialEq)]
enum SenderKind {
    Agent,
    /// Script that lets the hub set the time.
    Script,
    /// Script that sends the time of its clock.
    ScriptWithTime,
    Ssh,
}

/// Time range in milliseconds since 1970.
type Window = (i64, i64);

/// Snapshots that a sender delivers together.
struct Delivery {
    host: HostId,
    snapshots: Vec<Snapshot>,
    skew_ms: Option<i64>,
}

#[derive(Debug)]
struct Sender {
    host: HostId,
    kind: SenderKind,
    interval_s: u64,
    skew_ms: i64,
    outage: Window,
    load: Window,
    next_s: u64,
    seq: u64,
    /// Snapshots that an agent took while the hub was down.
    spool: Vec<Snapshot>,
}

impl Sender {
    fn new(number: u64, duration_s: u64, random: &mut fastrand::Rng) -> Self {
        // Outages are longer than a few intervals, and both fit into the duration.
        let max_minutes = (duration_s / 60 / 24).min(30);
        let (kind, interval_s) = match number % 4 {
            0 => (SenderKind::Agent, random.u64(1..=10)),
            1 => (SenderKind::Script, random.u64(1..=max_minutes) * 60),
            2 => (SenderKind::ScriptWithTime, random.u64(1..=max_minutes) * 60),
            _ => (SenderKind::Ssh, (max_minutes * 60).min(MAX_SSH_INTERVAL_S)),
        };
        // An interval is known after a few snapshots.
        let learned_s = 6 * interval_s;
        let window = |length_s: u64, random: &mut fastrand::Rng| {
            let latest_s = duration_s.saturating_sub(length_s + interval_s).max(learned_s + 1);
            let from_ms = START_MS + i64::try_from(random.u64(learned_s..latest_s)).unwrap() * 1_000;
            (from_ms, from_ms + i64::try_from(length_s).unwrap() * 1_000)
        };
        let outage = window(5 * interval_s + 900, random);
        let load = window(5 * interval_s + 600, random);
        Self {
            host: host(u128::from(number) + 1),
            kind,
            interval_s,
            skew_ms: random.i64(-7_200_000..=7_200_000),
            outage,
            load,
            next_s: random.u64(..interval_s),
            seq: 0,
            spool: Vec::new(),
        }
    }

    fn interval_ms(&self) -> i64 {
        i64::try_from(self.interval_s).unwrap() * 1_000
    }

    /// Load that an outage covers is not seen.
    fn has_visible_load(&self) -> bool {
        self.load.1 < self.outage.0 || self.load.0 > self.outage.1
    }

    fn snapshot(&mut self, hub: &TestHub, now_ms: i64) -> Snapshot {
        self.seq += 1;
        let values = if (self.load.0..self.load.1).contains(&now_ms) { LOADED } else { NORMAL };
        let declared_ms = match self.kind {
            SenderKind::Agent | SenderKind::Ssh => u32::try_from(self.interval_ms()).unwrap(),
            _ => 0,
        };
        let skew_ms = match self.kind {
            SenderKind::Agent | SenderKind::ScriptWithTime => self.skew_ms,
            _ => 0,
        };
        let template = hub.template(declared_ms, values);
        Snapshot {
            boot: BootId::from_bytes(&[1; 16]).unwrap(),
            seq: self.seq,
            at_ms: now_ms + skew_ms,
            ..template
        }
    }

    /// Takes a snapshot when it is due. Returns the delivery if the hub runs.
    fn tick(
        &mut self,
        hub: &TestHub,
        now_s: u64,
        is_hub_running: bool,
        random: &mut fastrand::Rng,
    ) -> Option<Delivery> {
        if now_s < self.next_s {
            return None;
        }
        // Scripts start a few seconds late.
        let jitter_s = if self.kind == SenderKind::Agent { 0 } else { random.u64(0..4) };
        self.next_s = (now_s / self.interval_s + 1) * self.interval_s + jitter_s;
        let now_ms = hub.clock.wall_ms();
        if (self.outage.0..self.outage.1).contains(&now_ms) {
            return None;
        }
        let snapshot = self.snapshot(hub, now_ms);
        match (is_hub_running, self.kind) {
            (false, SenderKind::Agent) => {
                self.spool.push(snapshot);
                None
            }
            (false, _) => None,
            (true, SenderKind::Agent) => {
                let mut snapshots = std::mem::take(&mut self.spool);
                snapshots.push(snapshot);
                let skew_ms = Some(self.skew_ms + random.i64(-400..400));
                Some(Delivery { host: self.host, snapshots, skew_ms })
            }
            (true, _) => Some(Delivery { host: self.host, snapshots: vec![snapshot], skew_ms: None }),
        }
    }
}

fn schedules(senders: &[Sender]) -> HashMap<HostId, PollSchedule> {
    let agentless = senders.iter().filter(|sender| sender.kind == SenderKind::Ssh);
    let schedule = |sender: &Sender| PollSchedule {
        enabled: true,
        interval_ms: u32::try_from(sender.interval_ms()).unwrap(),
        last_success_ms: None,
    };
    agentless.map(|sender| (sender.host, schedule(sender))).collect()
}

/// Adds the alerts of open incidents: host and rule, and the time of firing by the alert's id.
fn collect_alerts(hub: &TestHub, alerts: &mut BTreeMap<Uuid, FiredAlert>) {
    for open in hub.alerting.snapshot().incidents.iter() {
        for alert in &open.alerts {
            alerts.insert(alert.id, (alert.host, alert.rule.as_u128() - 1_000, alert.fired_ms));
        }
    }
}

/// Alert of the simulation: host, rule and time of firing.
type FiredAlert = (HostId, u128, i64);

/// Rule, times of firing, and sender that disagree.
type Disagreement<'a> = (u128, Vec<i64>, &'a Sender);

/// Compares fired with planted alerts; returns false and missed alerts.
fn compare<'a>(
    senders: &'a [Sender],
    alerts: &BTreeMap<Uuid, FiredAlert>,
) -> (Vec<Disagreement<'a>>, Vec<Disagreement<'a>>) {
    let (mut false_alerts, mut missed) = (Vec::new(), Vec::new());
    for sender in senders {
        let fired = |rule: u128| -> Vec<i64> {
            let of_rule = alerts.values().filter(|alert| alert.0 == sender.host && alert.1 == rule);
            of_rule.map(|alert| alert.2).collect()
        };
        // The first snapshot after an outage comes up to an interval later.
        let grace_ms = sender.interval_ms() + 5_000;
        // Times of a script are its own, if it is behind.
        let own_ms = if sender.kind == SenderKind::ScriptWithTime { sender.skew_ms.min(0) } else { 0 };
        let load = (sender.load.0 + own_ms, sender.load.1 + own_ms);
        for (rule, window, is_expected) in
            [(RULE_NO_DATA, sender.outage, true), (RULE_LOAD, load, sender.has_visible_load())]
        {
            let fired = fired(rule);
            let is_planted = |at_ms: &i64| (window.0..=window.1 + grace_ms).contains(at_ms);
            if fired.iter().any(|at_ms| !is_planted(at_ms)) {
                false_alerts.push((rule, fired.clone(), sender));
            }
            if is_expected && !fired.iter().any(is_planted) {
                missed.push((rule, fired, sender));
            }
        }
    }
    (false_alerts, missed)
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn fleet_of_mixed_senders_has_the_planted_alerts_only() {
    let (hours, hosts) = (setting("FLEET_HOURS", DEFAULT_HOURS), setting("FLEET_HOSTS", DEFAULT_HOSTS));
    let duration_s = hours * 3_600;
    let mut random = fastrand::Rng::with_seed(15);
    let mut senders: Vec<Sender> =
        (0..hosts).map(|number| Sender::new(number, duration_s, &mut random)).collect();
    let site = TestSite::new();
    let mut hub = site.start().await;
    hub.schedule(schedules(&senders));
    let load = json!({"kind": "threshold", "metric": "cpu.usage", "threshold": 90});
    let no_data = json!({"kind": "no_data", "grace": format!("{GRACE_S}s")});
    let rules = vec![rule(RULE_NO_DATA, no_data, 0), rule(RULE_LOAD, load, HOLD_S)];
    hub.set_definitions(rules, vec![], vec![]).await;
    let mut alerts = BTreeMap::new();
    let mut restart_s = random.u64(1_800..7_200);
    let mut now_s = 0;
    while now_s < duration_s {
        if now_s >= restart_s {
            collect_alerts(&hub, &mut alerts);
            let downtime_s = random.u64(2..180);
            for _ in 0..downtime_s {
                for sender in &mut senders {
                    assert!(sender.tick(&hub, now_s, false, &mut random).is_none());
                }
                site.clock.advance(Duration::from_secs(1));
                now_s += 1;
            }
            hub.crash().await;
            hub = site.open().await;
            hub.schedule(schedules(&senders));
            hub.restore_recent_window().await;
            hub.start();
            restart_s = now_s + random.u64(600..10_800);
        }
        let due = senders.iter_mut().filter_map(|sender| sender.tick(&hub, now_s, true, &mut random));
        let due: Vec<Delivery> = due.collect();
        // Together: the store commits what arrives within some milliseconds at once.
        let ingest = |due: Delivery| hub.ingest(due.host, due.snapshots, due.skew_ms);
        futures_util::future::join_all(due.into_iter().map(ingest)).await;
        hub.advance_s(1).await;
        now_s += 1;
        if now_s.is_multiple_of(10) {
            collect_alerts(&hub, &mut alerts);
        }
    }
    collect_alerts(&hub, &mut alerts);
    let (false_alerts, missed) = compare(&senders, &alerts);
    println!(
        "{hosts} hosts, {hours} h: {} alerts, {} false, {} missed",
        alerts.len(),
        false_alerts.len(),
        missed.len()
    );
    assert!(false_alerts.is_empty() && missed.is_empty(), "false {false_alerts:#?} missed {missed:#?}");
}

//! Simulation of a hub and its hosts in one process: the clock is manual, and one seed draws all events. Hosts
//! send snapshots in time, late and repeatedly, and change their boots and clocks. The database fails for some
//! time, receivers are unavailable, and the hub is stopped or killed at any call of the store and opened again
//! on the same database.
//!
//! Afterwards each acknowledged row is stored once, roll-ups equal a recount of the rows, alerts are those of
//! the pure evaluators on the same rows, and each incident was notified as its channels demand. A seed is
//! repeated by `SIMULATION_SEED=17`; `SIMULATION_EVENTS` sets the number of events.

mod alert_checks;
mod events;
mod history_checks;
mod hosts;
mod hub;
mod receivers;
mod reference;
mod store;

use alert_checks::{
    alerts_by_host, assert_same_alerts, check_grouping, check_notifications, has_same_alerts,
    stored_incidents,
};
use history_checks::{TimeRange, check_rolled_up, check_rollups, check_rows, raw_rows};
use hosts::FakeHost;
use hub::{SimulatedHub, Site};
use perfwatch_history::HistoryConfig;
use perfwatch_model::{Clock as _, Snapshot};
use reference::{HostReference, RowKey, row_key};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use store::DatabaseMode;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Start of a simulation, in the evening, UTC.
const START_MS: i64 = 20_400 * DAY_MS + 20 * HOUR_MS;
/// Seeds of every run.
const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];
/// Retention of raw rows in some of the simulations.
const SHORT_RETENTION: Duration = Duration::from_secs(6 * 3_600);
/// Number of events of a simulation.
const DEFAULT_EVENTS: u64 = 100;
const HOSTS: u64 = 3;
/// Maximum number of attempts to start a hub that is killed while it starts.
const MAX_STARTS: usize = 20;
/// Time in which the hub repeats what failed: longer than all its pauses between two attempts.
const RETRY_PERIOD: Duration = Duration::from_secs(5);
/// Number of steps after the last event, each of up to a minute.
const FINAL_STEPS: usize = 45;
/// Number of newest events that a failed simulation prints.
const PRINTED_EVENTS: usize = 300;

/// Number in the environment, if it is set.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Simulation with its state; prints seed and events if a check fails.
struct Simulation {
    seed: u64,
    rng: fastrand::Rng,
    // Dropped before the folder of the database.
    hub: Option<SimulatedHub>,
    site: Site,
    hosts: Vec<FakeHost>,
    references: Vec<HostReference>,
    /// Host whose next acknowledgment is lost.
    loses_ack: Option<usize>,
    /// Number of faults when the alerts of all accepted rows were stored for the last time.
    settled_epoch: u64,
    events: Vec<String>,
    restarts: usize,
    /// Number of times that a killed hub lost alerts of rows that it had just accepted.
    adopted: usize,
}

impl Drop for Simulation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let skipped = self.events.len().saturating_sub(PRINTED_EVENTS);
            let events = self.events[skipped..].join("\n");
            eprintln!("{events}\nrepeat with SIMULATION_SEED={}", self.seed);
        }
    }
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        // The hub draws the size of the first block of a host.
        fastrand::seed(seed);
        let mut config = HistoryConfig::default();
        if rng.bool() {
            config.raw_retention = SHORT_RETENTION;
        }
        let site = Site::new(START_MS, config);
        let hosts: Vec<FakeHost> =
            (0..HOSTS).map(|number| FakeHost::new(number, START_MS, &mut rng)).collect();
        let references = hosts.iter().map(|host| HostReference::new(host.id)).collect();
        let hub = SimulatedHub::start(&site, true);
        Self {
            seed,
            rng,
            hub,
            site,
            hosts,
            references,
            loses_ack: None,
            settled_epoch: 0,
            events: Vec::new(),
            restarts: 0,
            adopted: 0,
        }
    }

    fn log(&mut self, event: &dyn Debug) {
        let minutes = (self.now_ms() - START_MS) as f64 / MINUTE_MS as f64;
        self.events.push(format!("{minutes:.2} min: {event:?}"));
    }

    fn now_ms(&self) -> i64 {
        self.site.clock.wall_ms()
    }

    /// Range that contains the times of all rows.
    fn range(&self) -> TimeRange {
        (START_MS - 2 * DAY_MS, self.now_ms() + DAY_MS)
    }

    fn hub(&self) -> &SimulatedHub {
        self.hub.as_ref().unwrap()
    }

    /// Opens a hub that was killed again.
    fn restart_killed(&mut self) {
        let down_s = if self.rng.bool() { 0 } else { self.rng.u64(1..600) };
        self.log(&format!("killed, down for {down_s} s"));
        self.start_hub(down_s);
    }

    /// Drops the hub and opens it again, after it was down for a time.
    fn start_hub(&mut self, down_s: u64) {
        self.hub = None;
        self.site.clock.advance(Duration::from_secs(down_s));
        let now_ms = self.now_ms();
        self.hosts.iter_mut().for_each(|host| host.collect(now_ms, &mut self.rng));
        for _ in 0..MAX_STARTS {
            self.restarts += 1;
            self.site.faults.reset();
            if self.rng.u32(..6) == 0 {
                self.site.faults.crash_after(self.rng.u32(..50), self.rng.bool());
            }
            self.hub = SimulatedHub::start(&self.site, false);
            if self.hub.is_some() {
                return self.compare_after_start();
            }
        }
        panic!("the hub does not start");
    }

    /// Accepts the rows that a restarted hub has, and compares its alerts. A hub that was killed may lose
    /// alerts of rows that it had just accepted.
    fn compare_after_start(&mut self) {
        let (now_ms, range) = (self.now_ms(), self.range());
        self.site.faults.suspend(true);
        let hub = self.hub.as_ref().unwrap();
        let references = &mut self.references;
        let alerts = hub.drive(async {
            for reference in references.iter_mut().filter(|reference| !reference.uncertain.is_empty()) {
                let stored = stored_rows(hub, reference, range).await;
                reference.resolve_uncertain(&stored, now_ms);
            }
            // The replay of all hosts.
            tokio::time::sleep(RETRY_PERIOD).await;
            alerts_by_host(&stored_incidents(hub).await)
        });
        let mut alerts = alerts.expect("faults are suspended");
        for reference in &mut self.references {
            let stored = alerts.remove(&reference.host).unwrap_or_default();
            let expected = reference.sorted_alerts();
            let is_equal = has_same_alerts(&stored, &expected);
            if !reference.is_in_doubt && !reference.differs_in_replay() {
                assert_same_alerts(reference.host, &stored, &expected);
            } else if !is_equal || reference.differs_in_replay() {
                self.adopted += usize::from(!is_equal);
                reference.adopt(stored, now_ms);
            }
        }
        self.set_settled();
        self.site.faults.suspend(false);
    }

    /// Repairs the database and compares rows, roll-ups and alerts.
    fn check(&mut self) {
        self.site.faults.set_mode(DatabaseMode::Available);
        self.site.faults.suspend(true);
        let hub = self.hub();
        let is_alive = hub.run_timers(RETRY_PERIOD);
        assert!(is_alive, "faults are suspended");
        let compared = hub.drive(async {
            for reference in &self.references {
                check_rows(hub, reference, self.range()).await;
                check_rollups(hub, reference, self.range()).await;
            }
            let incidents = stored_incidents(hub).await;
            check_grouping(&incidents);
            let mut alerts = alerts_by_host(&incidents);
            for reference in &self.references {
                let stored = alerts.remove(&reference.host).unwrap_or_default();
                assert_same_alerts(reference.host, &stored, &reference.sorted_alerts());
            }
        });
        compared.expect("faults are suspended");
        self.set_settled();
        self.site.faults.suspend(false);
    }

    /// Ends all faults and alerts, and rolls up everything.
    fn finish(&mut self) {
        self.site.faults.reset();
        self.site.receivers.set_unavailable(false);
        self.loses_ack = None;
        let now_ms = self.now_ms();
        for host in &mut self.hosts {
            host.is_connected = true;
            host.is_idle = true;
            host.start(now_ms);
        }
        // Longer than the time in which a flapping incident is held open.
        (0..FINAL_STEPS).for_each(|_| self.step());
        self.check();
        assert!(self.hosts.iter().all(|host| host.spool.is_empty()));
        self.hosts.iter_mut().for_each(|host| host.is_running = false);
        for _ in 0..4 {
            self.site.clock.advance(Duration::from_millis(DAY_MS.unsigned_abs() / 2));
            assert!(self.hub().run_timers(2 * RETRY_PERIOD));
        }
    }

    /// Compares everything at the end.
    fn check_at_the_end(&self) {
        let (hub, range) = (self.hub(), self.range());
        let deletes_raw = self.site.config.raw_retention != HistoryConfig::default().raw_retention;
        let compared = hub.drive(async {
            for reference in &self.references {
                check_rows(hub, reference, range).await;
                check_rolled_up(hub, reference, range, !deletes_raw).await;
            }
            let incidents = stored_incidents(hub).await;
            check_notifications(hub, &incidents, self.site.receivers.received()).await;
            incidents.len()
        });
        let rows: usize = self.references.iter().map(|reference| reference.rows.len()).sum();
        let alerts: usize = self.references.iter().map(|reference| reference.alerts.len()).sum();
        eprintln!(
            "seed {}: {} events, {} restarts, {rows} rows, {alerts} alerts, {} incidents, {} notifications; {} \
             times, a killed hub lost alerts",
            self.seed,
            self.events.len(),
            self.restarts,
            compared.expect("faults are suspended"),
            self.site.receivers.received().len(),
            self.adopted
        );
    }
}

/// Rows of a host that are stored, among them those that are only in roll-ups.
async fn stored_rows(
    hub: &SimulatedHub,
    reference: &HostReference,
    range: TimeRange,
) -> BTreeMap<RowKey, Arc<Snapshot>> {
    let rows = raw_rows(hub, reference.host, range).await;
    let mut stored: BTreeMap<RowKey, Arc<Snapshot>> =
        rows.into_iter().map(|row| (row_key(&row), row)).collect();
    let sealed = hub.store.sequence_ranges(Some(reference.host)).await.unwrap();
    for (key, row) in &reference.uncertain {
        if sealed.iter().any(|ranges| ranges.boot == key.0 && ranges.seqs.contains(key.1)) {
            stored.entry(*key).or_insert_with(|| row.clone());
        }
    }
    stored
}

fn simulate(seed: u64) {
    let mut simulation = Simulation::new(seed);
    for _ in 0..setting("SIMULATION_EVENTS").unwrap_or(DEFAULT_EVENTS) {
        simulation.run_event();
    }
    simulation.finish();
    simulation.check_at_the_end();
}

#[test]
fn rows_rollups_alerts_and_notifications_survive_all_faults() {
    let seeds = setting("SIMULATION_SEED").map_or(SEEDS.to_vec(), |seed| vec![seed]);
    std::thread::scope(|scope| {
        for seed in seeds {
            scope.spawn(move || simulate(seed));
        }
    });
}

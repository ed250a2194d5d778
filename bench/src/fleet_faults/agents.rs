//! Agents: simulated hosts that send as the agent does, with its HTTP client, its queue of unacknowledged
//! snapshots and its pauses after failures, and record what was acknowledged.

use super::breaches::{Breach, Planter};
use crate::health::lock;
use crate::hub_process::HubProcess;
use fastrand::Rng;
use perfwatch::simulate::SimHost;
use perfwatch_agent::{HubClient, HubResponse};
use perfwatch_model::wire::{self, Batch, IngestResponse};
use perfwatch_model::{Clock as _, HostId, Snapshot, SystemClock, limits};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(1);
const INTERVAL_MS: u32 = 1_000;
/// Maximum number of snapshots that an agent has from before the start. A block is due after 150.
const MAX_BACKLOG: i64 = 110;
/// Pauses of the agent: see its `pusher.rs`.
const INITIAL_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// Longest sleep before the stop flag is checked again.
const SLICE: Duration = Duration::from_millis(50);
/// Snapshots for each hub at the end, with which the rows of all hosts are enough for a block.
const SEALING_ROWS: usize = 150;
/// Age of these snapshots.
const SEALING_AGE_MS: i64 = 2 * 3_600_000;
/// Attempts of a hub to accept them.
const MAX_SEALING_ATTEMPTS: usize = 40;
const SEALING_RETRY_DELAY: Duration = Duration::from_millis(500);

/// Snapshot that a hub acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acknowledged {
    pub(super) seq: u64,
    /// Time of the snapshot, Unix milliseconds.
    pub(super) at_ms: i64,
}

/// Agent of a simulated host.
pub(super) struct Agent {
    host: SimHost,
    planter: Planter,
    pub(super) breach: Option<Breach>,
    secret: String,
    /// Snapshots without an acknowledgment, oldest first.
    spool: VecDeque<Snapshot>,
    batch_size: usize,
    sends_shapes: bool,
    /// Failed attempts since the last acknowledgment.
    failures: u32,
    /// Monotonic time of the next tick.
    due: Duration,
    pub(super) acknowledged: Vec<Acknowledged>,
    rng: Rng,
}

/// State of a run that all agents share.
pub(super) struct Sending {
    pub(super) clock: SystemClock,
    /// Agents create no more snapshots, and end when all are acknowledged.
    pub(super) is_ending: AtomicBool,
    /// Agents end at once.
    pub(super) is_abandoned: AtomicBool,
    /// Requests that were not accepted, by reason.
    pub(super) refusals: Mutex<BTreeMap<String, u64>>,
}

/// What follows an attempt to send.
enum Attempt {
    Accepted,
    /// The same snapshots again at once, with shapes or fewer of them.
    Repeat,
    Pause(Duration),
}

impl Agent {
    /// Enrolls the agents of a run.
    pub(super) fn enroll(
        hub: &HubProcess,
        admin: &str,
        count: usize,
        (rng, clock, run_time): (&mut Rng, SystemClock, Duration),
    ) -> anyhow::Result<Vec<Self>> {
        let agent = |(number, (host, bearer)): (usize, (SimHost, String))| -> anyhow::Result<Self> {
            let breach = Breach::plan(rng, clock.wall_ms(), run_time);
            let phase = INTERVAL * u32::try_from(number).unwrap_or_default() / u32::try_from(count)?.max(1);
            let mut agent = Self {
                planter: Planter::new(host.shape(), breach),
                host,
                breach,
                secret: bearer.trim_start_matches("Bearer ").to_owned(),
                spool: VecDeque::new(),
                batch_size: limits::MAX_BATCH_SNAPSHOTS,
                sends_shapes: false,
                failures: 0,
                due: clock.monotonic() + phase,
                acknowledged: Vec::new(),
                rng: rng.fork(),
            };
            agent.add_backlog(rng.i64(0..=MAX_BACKLOG), clock.wall_ms());
            Ok(agent)
        };
        hub.enroll_fleet(admin, count)?.into_iter().enumerate().map(agent).collect()
    }

    pub(super) fn id(&self) -> HostId {
        self.host.id
    }

    pub(super) fn name(&self) -> &str {
        &self.host.name
    }

    /// Number of snapshots without an acknowledgment.
    pub(super) fn unacknowledged(&self) -> usize {
        self.spool.len()
    }

    fn tick(&mut self, at_ms: i64) -> Snapshot {
        let mut snapshot = self.host.tick(at_ms, INTERVAL_MS);
        self.planter.plant(&mut snapshot);
        snapshot
    }

    /// Adds snapshots from before the start.
    fn add_backlog(&mut self, count: i64, now_ms: i64) {
        for age in (1..=count).rev() {
            let snapshot = self.tick(now_ms - age * i64::from(INTERVAL_MS));
            self.spool.push_back(snapshot);
        }
    }

    /// Adds the ticks that are due: an agent collects while a request of it waits.
    fn collect(&mut self, clock: SystemClock) {
        let now = clock.monotonic();
        while self.due <= now {
            let age_ms = i64::try_from((now - self.due).as_millis()).unwrap_or_default();
            let snapshot = self.tick(clock.wall_ms() - age_ms);
            self.spool.push_back(snapshot);
            self.due += INTERVAL;
        }
    }

    /// Sends until the end of the run.
    pub(super) fn run(&mut self, hub: &HubClient, sending: &Sending) {
        let mut paused_until = Duration::ZERO;
        while !sending.is_abandoned.load(Ordering::Relaxed) {
            let is_ending = sending.is_ending.load(Ordering::Relaxed);
            if !is_ending {
                self.collect(sending.clock);
            } else if self.spool.is_empty() {
                return;
            }
            let now = sending.clock.monotonic();
            if self.spool.is_empty() || now < paused_until {
                let next = if self.spool.is_empty() { self.due } else { paused_until };
                std::thread::sleep(next.saturating_sub(now).clamp(Duration::from_millis(1), SLICE));
                continue;
            }
            if let Attempt::Pause(pause) = self.send(hub, sending) {
                paused_until = sending.clock.monotonic() + pause;
            }
        }
    }

    /// Sends the oldest snapshots once.
    fn send(&mut self, hub: &HubClient, sending: &Sending) -> Attempt {
        let count = self.spool.len().min(self.batch_size);
        let refuse = |reason: String| *lock(&sending.refusals).entry(reason).or_default() += 1;
        let sent = self.post(hub, self.spool.iter().take(count), sending.clock);
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                self.batch_size = count.div_ceil(2);
                refuse(format!("no response: {error}"));
                return Attempt::Pause(self.pause(None));
            }
        };
        match (response.status, response.error("code").as_str()) {
            (200, _) => {
                let report: IngestResponse = serde_json::from_str(&response.body).unwrap_or_default();
                self.batch_size = limits::MAX_BATCH_SNAPSHOTS;
                (self.sends_shapes, self.failures) = (false, 0);
                for rejected in &report.rejected {
                    refuse(format!("snapshot rejected: {}", rejected.code));
                }
                let is_rejected = |index| report.rejected.iter().any(|rejected| rejected.index == index);
                let sent = self.spool.drain(..count).enumerate();
                let accepted = sent.filter(|(index, _)| !is_rejected(*index)).map(|(_, snapshot)| snapshot);
                let entry = |snapshot: Snapshot| Acknowledged { seq: snapshot.seq, at_ms: snapshot.at_ms };
                self.acknowledged.extend(accepted.map(entry));
                Attempt::Accepted
            }
            (409, wire::ERROR_UNKNOWN_SHAPE) if !self.sends_shapes => {
                self.sends_shapes = true;
                Attempt::Repeat
            }
            (status, code) => {
                refuse(format!("{status} {code}"));
                Attempt::Pause(self.pause(response.retry_after))
            }
        }
    }

    /// Pause after a failed attempt, as long as that of the agent.
    fn pause(&mut self, retry_after: Option<Duration>) -> Duration {
        self.failures += 1;
        let longest = INITIAL_BACKOFF.saturating_mul(1 << self.failures.min(16)).min(MAX_BACKOFF);
        let pause = longest.mul_f64(0.5 + self.rng.f64() / 2.0);
        retry_after.map_or(pause, |delay| delay.max(pause))
    }

    fn post<'a>(
        &self,
        hub: &HubClient,
        snapshots: impl Iterator<Item = &'a Snapshot>,
        clock: SystemClock,
    ) -> Result<HubResponse, String> {
        let shapes = self.sends_shapes.then(|| wire::encode_shape(self.host.shape()));
        let batch = Batch {
            host_id: self.host.id.to_bytes().to_vec().into(),
            host_name: self.host.name.clone(),
            shapes: shapes.into_iter().collect(),
            snapshots: snapshots.map(wire::encode_snapshot).collect(),
            sent_at_ms: clock.wall_ms(),
            facts: None,
        };
        let body = zstd::bulk::compress(&wire::encode_batch(&batch), 1).map_err(|error| error.to_string())?;
        let headers = [("Content-Type", wire::CONTENT_TYPE), ("Content-Encoding", "zstd")];
        hub.post("/ingest/metrics", &headers, Some(&self.secret), &body)
    }

    /// Sends old snapshots to every hub, after which each hub moves all its rows of the host into blocks. A
    /// row that two hubs accepted is then twice in the database.
    pub(super) fn send_sealing_rows(&mut self, hubs: &[HubClient], clock: SystemClock) -> Result<(), String> {
        let mut at_ms = clock.wall_ms() - SEALING_AGE_MS;
        for hub in hubs {
            for _ in 0..SEALING_ROWS {
                at_ms += i64::from(INTERVAL_MS);
                let snapshot = self.tick(at_ms);
                self.spool.push_back(snapshot);
            }
            let sending = Sending::new(clock);
            let mut attempts = 0;
            while !self.spool.is_empty() {
                if attempts == MAX_SEALING_ATTEMPTS {
                    return Err(format!("{}: {:?}", self.host.name, lock(&sending.refusals)));
                }
                attempts += 1;
                if let Attempt::Pause(_) = self.send(hub, &sending) {
                    std::thread::sleep(SEALING_RETRY_DELAY);
                }
            }
        }
        Ok(())
    }
}

impl Sending {
    pub(super) fn new(clock: SystemClock) -> Self {
        let (is_ending, is_abandoned) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { clock, is_ending, is_abandoned, refusals: Mutex::default() }
    }
}
